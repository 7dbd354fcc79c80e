from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from operator_world import NEEDED, NOW, World, spec_of, stamp
from taskflow_core.scaling import Decision, Demand, History, Reason
from taskflow_operator.conditions import invalid_status, status_of
from taskflow_operator.news import news
from taskflow_operator.observed import Key
from taskflow_operator.scaler import Flag, PoolReport
from taskflow_operator.spec import Spec
from taskflow_operator.status import Condition, ConditionType, Status

YES, NO = Flag(True, "Reads", ""), Flag(False, "Within", "")


def report(**changes: Any) -> PoolReport:
    demand = Demand(replicas=2, slots=4, waiting=12, running=3, oldest_s=41.4)
    decision = Decision(5, 4, Reason.DEMAND, "2 -> 4: waiting 12", History())
    fields: dict[str, Any] = {
        "decision": decision,
        "demand": demand,
        "replicas": 2,
        "busy": 1,
        "idle": 1,
        "draining": 0,
        "broker_reachable": YES,
        "scaling_active": YES,
        "scaling_limited": NO,
    }
    return PoolReport(**(fields | changes))


def running_world() -> World:
    world = World()
    world.settle(spec_of())
    world.get_ready()
    return world


def status(world: World, before: Status | None = None, *, spec: Spec | None = None, **reports: PoolReport) -> Status:
    wanted = spec or spec_of()
    made = world.plan(wanted)
    return status_of(world.look(), wanted, before or Status(), made, reports, now=world.now)


def condition(found: Status, kind: ConditionType) -> Condition:
    held = found.condition(kind)
    assert held is not None
    return held


def test_a_cluster_whose_api_and_scheduler_are_ready_is_ready_and_running() -> None:
    found = status(running_world(), default=report())
    assert condition(found, "Ready").status == "True"
    assert condition(found, "Degraded").status == "False"
    assert found.phase == "Running"
    assert found.workers.selector.count("taskflow.io/pool=default") == 1
    assert (found.workers.busy, found.workers.desired) == (1, 4)
    assert found.scaling.inputs.oldest_seconds == 41


def test_a_broker_that_is_away_changes_nothing_about_ready() -> None:
    away = Flag(False, "RedisAway", "connection refused")
    found = status(running_world(), default=report(broker_reachable=away, scaling_active=away))
    assert condition(found, "Ready").status == "True"
    assert condition(found, "BrokerReachable").status == "False"
    assert condition(found, "ScalingActive").message == "connection refused"


def test_nothing_changes_when_nothing_changed_however_late_it_is() -> None:
    world = running_world()
    first = status(world, default=report())
    world.now += timedelta(hours=1)
    assert status(world, first, default=report()) == first


def test_a_condition_that_turns_says_since_when_and_one_that_stays_keeps_its_time() -> None:
    world = running_world()
    first = status(world, default=report())
    world.now += timedelta(hours=1)
    away = Flag(False, "RedisAway", "")
    second = status(world, first, default=report(broker_reachable=away))
    assert condition(second, "BrokerReachable").last_transition_time == stamp(world.now)
    assert condition(second, "Ready").last_transition_time == stamp(NOW)


def waiting(reason: str, message: str) -> dict[str, Any]:
    return {
        "containerStatuses": [
            {"image": "example.com/nope:1", "state": {"waiting": {"reason": reason, "message": message}}}
        ]
    }


def ended(reason: str, words: str) -> dict[str, Any]:
    state = {"waiting": {"reason": reason}}
    return {"containerStatuses": [{"state": state, "lastState": {"terminated": {"message": words}}}]}


UNSCHEDULABLE = {
    "conditions": [
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/3 nodes are available",
            "lastTransitionTime": stamp(NOW - timedelta(minutes=5)),
        }
    ]
}
UNREADY = {
    "conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": stamp(NOW - timedelta(minutes=5))}],
    "containerStatuses": [{"state": {"running": {}}}],
}


@pytest.mark.parametrize(
    ("component", "pod", "reason", "words"),
    [
        ("worker", waiting("ImagePullBackOff", "not found"), "ImagePullFailed", "example.com/nope:1 cannot be pulled"),
        ("worker", waiting("InvalidImageName", "bad"), "ImagePullFailed", "check spec.image"),
        ("api", waiting("CreateContainerConfigError", "secret x"), "ContainerRefused", "secret x"),
        ("worker", ended("CrashLoopBackOff", "no such file"), "Crashing", "no such file"),
        ("worker", UNSCHEDULABLE, "Unschedulable", "0/3 nodes are available"),
        ("api", UNREADY, "ApiNotReady", "PostgreSQL at spec.database"),
    ],
)
def test_a_pod_that_does_not_work_is_told_with_what_to_do(
    component: str, pod: dict[str, Any], reason: str, words: str
) -> None:
    world = running_world()
    world.pod(component, **pod)
    degraded = condition(status(world), "Degraded")
    assert (degraded.status, degraded.reason) == ("True", reason)
    assert words in degraded.message


def test_a_quota_that_refuses_pods_is_told() -> None:
    world = running_world()
    body = world.children[Key("Deployment", "shop-worker")]
    failure = {"type": "ReplicaFailure", "status": "True", "message": "pods is forbidden: exceeded quota: team"}
    body["status"]["conditions"] = [failure]
    degraded = condition(status(world), "Degraded")
    assert degraded.reason == "QuotaExceeded"
    assert "exceeded quota: team" in degraded.message


def test_a_failed_migration_is_told_with_its_last_words() -> None:
    world = World()
    world.perform(world.plan(spec_of()))
    world.end_jobs("Failed")
    world.pod("migrate", containerStatuses=[{"state": {"terminated": {"message": "cannot use the database"}}}])
    found = status(world)
    assert condition(found, "Degraded").reason == "MigrationFailed"
    assert "cannot use the database" in condition(found, "Degraded").message
    assert condition(found, "Progressing").reason == "MigrationFailed"


def test_a_name_that_somebody_else_holds_is_told() -> None:
    world = World(taken=frozenset({Key("Deployment", "shop-api")}))
    degraded = condition(status(world), "Degraded")
    assert degraded.reason == "NameTaken"
    assert "Deployment shop-api exists and belongs to somebody else" in degraded.message


def test_a_missing_secret_is_the_first_thing_to_mend() -> None:
    world = World(missing=("Secret jwt has no key jwt-secret",))
    world.pod("worker", **waiting("ImagePullBackOff", ""))
    degraded = condition(status(world), "Degraded")
    assert degraded.reason == "SecretMissing"
    assert degraded.message.startswith("Secret jwt has no key jwt-secret; ")


@pytest.mark.parametrize(
    ("spec", "phase"),
    [({"suspend": True}, "Pending"), ({"paused": True}, "Paused"), ({}, "Migrating")],
)
def test_the_phase_of_a_new_cluster(spec: dict[str, Any], phase: str) -> None:
    world = World()
    if "suspend" in spec:
        world.settle(spec_of())
    assert status(world, spec=spec_of(**spec)).phase == phase


def test_a_suspended_cluster_says_when_it_has_drained() -> None:
    world = running_world()
    suspended = spec_of(suspend=True)
    assert condition(status(world, spec=suspended), "Suspended").reason == "Draining"
    for body in world.deployments():
        body["spec"]["replicas"] = 0
    found = status(world, spec=suspended)
    assert condition(found, "Suspended").status == "True"
    assert found.phase == "Suspended"


def test_a_pool_that_cannot_be_read_is_named() -> None:
    away = Flag(False, "RedisAway", "timed out")
    found = status(running_world(), default=report(), slow=report(broker_reachable=away))
    assert condition(found, "BrokerReachable").message == "pool slow: timed out"


def test_a_spec_of_another_version_is_told_field_by_field() -> None:
    with pytest.raises(ValidationError) as caught:
        Spec.model_validate(NEEDED | {"workers": {"concurrency": "many"}})
    found = invalid_status(Status(), {"generation": 3}, caught.value, now=NOW)
    assert condition(found, "Degraded").reason == "InvalidSpec"
    assert "spec.workers.concurrency" in condition(found, "Degraded").message
    assert found.observed_generation == 3


def test_only_what_turned_is_news() -> None:
    world = running_world()
    cluster = {"metadata": {"name": "shop", "namespace": "team", "uid": "1"}}
    first = status(world, default=report())
    world.now += timedelta(minutes=1)
    away = Flag(False, "RedisAway", "connection refused")
    second = status(world, first, default=report(broker_reachable=away))
    told = list(news(cluster, first, second, {"default": ["2 -> 4: waiting 12"], "slow": ["1 -> 0"]}))
    assert [(event["type"], event["reason"], event["message"]) for event in told] == [
        ("Warning", "RedisAway", "BrokerReachable is False: connection refused"),
        ("Normal", "Scaling", "2 -> 4: waiting 12"),
        ("Normal", "Scaling", "pool slow: 1 -> 0"),
    ]
    assert list(news(cluster, second, second, {})) == []


@pytest.mark.parametrize(
    ("reason", "kind"), [(Reason.VANISHED, "Warning"), (Reason.FALLBACK, "Warning"), (Reason.FIXED, "Normal")]
)
def test_scaling_that_ends_is_news_and_a_warning_unless_it_was_asked_for(reason: Reason, kind: str) -> None:
    world = running_world()
    cluster = {"metadata": {"name": "shop", "namespace": "team", "uid": "1"}}
    first = status(world, default=report())
    second = status(world, first, default=report(scaling_active=Flag(False, reason, "stays at 2: in words")))
    told = [(event["type"], event["reason"], event["message"]) for event in news(cluster, first, second, {})]
    assert told == [(kind, reason, "ScalingActive is False: stays at 2: in words")]


def test_the_status_is_what_the_definition_allows() -> None:
    written = status(running_world(), default=report()).model_dump(mode="json", by_alias=True, exclude_none=True)
    assert Status.model_validate(written) == status(running_world(), default=report())
