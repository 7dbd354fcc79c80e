from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operator_world import World, spec_of
from taskflow_operator.kinds import DEPLOYMENT, JOB, SERVICE, Body
from taskflow_operator.observed import Key, fingerprint, key_of
from taskflow_operator.plan import Action, Apply, Delete, Scale
from taskflow_operator.spec import Spec

MANY = settings(max_examples=40)


def applied(actions: tuple[Action, ...]) -> list[Key]:
    return [key_of(action.manifest) for action in actions if isinstance(action, Apply)]


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    pools = draw(st.lists(st.sampled_from(["slow", "mail", "reports"]), unique=True))
    changes: dict[str, Any] = {
        "image": {"repository": "example.com/taskflow", "tag": draw(st.sampled_from(["1.0", "2.0"]))},
        "suspend": draw(st.booleans()),
        "migrate": {"enabled": draw(st.booleans())},
        "api": {
            "replicas": draw(st.integers(1, 4)),
            "pdb": {"enabled": draw(st.booleans())},
            "ingress": {"enabled": draw(st.booleans()), "host": "tasks.example.com"},
        },
        "workers": {"concurrency": draw(st.integers(1, 8))},
        "extraPools": [{"name": name} for name in pools],
        "networkPolicy": {"enabled": draw(st.booleans())},
        "monitoring": {"podMonitor": {"enabled": draw(st.booleans())}},
    }
    return spec_of(**changes)


@MANY
@given(specs(), specs())
def test_applying_plans_leads_to_an_empty_plan_from_any_spec_to_any_other(first: Spec, second: Spec) -> None:
    world = World()
    world.settle(first)
    world.settle(second)
    assert world.plan(second).actions == ()


@MANY
@given(specs(), specs())
def test_no_pod_gets_an_image_before_its_migration_is_complete(first: Spec, second: Spec) -> None:
    world = World()
    for spec in (first, second):
        for _ in range(6):
            made = world.plan(spec)
            images = [
                action.manifest["spec"]["template"]["spec"]["containers"][0]["image"]
                for action in made.actions
                if isinstance(action, Apply) and action.manifest["kind"] == DEPLOYMENT.name
            ]
            jobs = {
                body["spec"]["template"]["spec"]["containers"][0]["image"]
                for key, body in world.children.items()
                if key.kind == JOB.name and body["status"]
            }
            assert not spec.migrate.enabled or set(images) <= jobs
            world.perform(made)
            world.end_jobs()


def foreign(kind: str, name: str, **metadata: Any) -> Body:
    return {
        "kind": kind,
        "metadata": {"name": name, "uid": "theirs", "resourceVersion": "1", **metadata},
        "spec": {"replicas": 7},
    }


@MANY
@given(specs(), st.sets(st.sampled_from(["shop-api", "shop-scheduler", "shop-worker", "shop-worker-slow", "other"])))
def test_what_belongs_to_others_is_never_touched(spec: Spec, names: set[str]) -> None:
    world = World()
    owner = {"kind": "Application", "uid": "somebody", "name": "them"}
    for name in names:
        world.children[Key("Deployment", name)] = foreign("Deployment", name, ownerReferences=[owner])
    before = {key: str(body) for key, body in world.children.items()}
    for _ in range(5):
        made = world.plan(spec)
        assert not touched(made.actions) & before.keys()
        world.perform(made)
        world.end_jobs()
    assert {key: str(world.children[key]) for key in before} == before


def touched(actions: tuple[Action, ...]) -> set[Key]:
    written = {Key(DEPLOYMENT.name, action.name) for action in actions if isinstance(action, Scale)}
    deleted = {Key(action.kind.name, action.name) for action in actions if isinstance(action, Delete)}
    return {*applied(actions)} | written | deleted


@MANY
@given(specs())
def test_no_manifest_names_a_replica_count(spec: Spec) -> None:
    world = World()
    made = [world.plan(spec)]
    world.perform(made[0])
    world.end_jobs()
    made.append(world.plan(spec))
    manifests = [action.manifest for one in made for action in one.actions if isinstance(action, Apply)]
    assert manifests
    assert all("replicas" not in manifest.get("spec", {}) for manifest in manifests)


def test_a_first_plan_makes_the_job_and_holds_the_deployments_back() -> None:
    world = World()
    made = world.plan(spec_of())
    kinds = [key.kind for key in applied(made.actions)]
    assert "Deployment" not in kinds
    assert kinds.count("Job") == 1
    assert made.hold is not None
    assert made.hold.reason == "Migrating"


def test_a_new_image_or_a_new_database_is_another_job_and_the_old_one_goes() -> None:
    world = World()
    world.settle(spec_of())
    jobs = [{key for key in world.children if key.kind == "Job"}]
    world.settle(spec_of(image={"repository": "example.com/taskflow", "tag": "2.0"}))
    jobs.append({key for key in world.children if key.kind == "Job"})
    world.hashes["migrate"] = "another"
    world.settle(spec_of(image={"repository": "example.com/taskflow", "tag": "2.0"}))
    jobs.append({key for key in world.children if key.kind == "Job"})
    assert [len(found) for found in jobs] == [1, 1, 1]
    assert len(set.union(*jobs)) == 3


def test_the_old_job_stays_until_the_new_one_is_complete() -> None:
    world = World()
    world.settle(spec_of())
    made = world.plan(spec_of(image={"repository": "example.com/taskflow", "tag": "2.0"}))
    assert not any(isinstance(action, Delete) for action in made.actions)


def test_a_failed_migration_holds_the_rollout_and_is_tried_again_after_five_minutes() -> None:
    world = World()
    world.perform(world.plan(spec_of()))
    world.end_jobs("Failed")
    made = world.plan(spec_of())
    assert made.actions == ()
    assert made.hold is not None
    assert made.hold.reason == "MigrationFailed"
    world.now += timedelta(minutes=6)
    again = world.plan(spec_of())
    assert [type(action) for action in again.actions] == [Delete]
    world.perform(again)
    assert [key.kind for key in applied(world.plan(spec_of()).actions)] == ["Job"]


def test_missing_secrets_hold_the_deployments_as_they_are() -> None:
    world = World()
    world.settle(spec_of())
    world.missing = ("Secret jwt does not exist",)
    world.hashes = dict.fromkeys(world.hashes, "")
    made = world.plan(spec_of(workers={"concurrency": 9}))
    assert made.actions == ()
    assert made.hold is not None
    assert made.hold.message == "Secret jwt does not exist"


@pytest.mark.parametrize("way", ["field", "annotation"])
def test_a_paused_cluster_is_left_alone(way: str) -> None:
    world = World(annotations={"taskflow.io/paused": "true"} if way == "annotation" else {})
    assert world.plan(spec_of(paused=way == "field")).actions == ()


def test_a_changed_field_is_repaired_and_a_replica_count_of_workers_is_not() -> None:
    world = World()
    world.settle(spec_of())
    service, workers = world.children[Key("Service", "shop-api")], world.children[Key("Deployment", "shop-worker")]
    workers["spec"]["replicas"] = 9
    assert world.plan(spec_of()).actions == ()
    service["spec"]["ports"][0]["port"] = 81
    assert applied(world.plan(spec_of()).actions) == [Key("Service", "shop-api")]


def test_values_that_the_api_server_writes_its_own_way_are_no_change() -> None:
    world = World()
    spec = spec_of(workers={"resources": {"requests": {"cpu": "1000m"}}})
    world.settle(spec)
    key = Key("Deployment", "shop-worker")
    world.children[key]["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "1"
    assert applied(world.plan(spec).actions) == [key]
    world.settled[key] = fingerprint(world.children[key])
    assert world.plan(spec).actions == ()


def test_replicas_of_api_and_scheduler_follow_the_spec() -> None:
    world = World()
    world.settle(spec_of(api={"replicas": 3}))
    assert world.children[Key("Deployment", "shop-api")]["spec"]["replicas"] == 3
    world.children[Key("Deployment", "shop-scheduler")]["spec"]["replicas"] = 0
    scale = world.plan(spec_of(api={"replicas": 3})).actions
    assert [(action.name, action.replicas) for action in scale if isinstance(action, Scale)] == [("shop-scheduler", 1)]


def test_suspend_stops_api_and_scheduler_only_after_the_workers() -> None:
    world = World()
    world.settle(spec_of())
    suspended = spec_of(suspend=True)
    assert world.plan(suspended).actions == ()
    world.children[Key("Deployment", "shop-worker")]["spec"]["replicas"] = 0
    names = {action.name: action.replicas for action in world.plan(suspended).actions if isinstance(action, Scale)}
    assert names == {"shop-api": 0, "shop-scheduler": 0}
    world.settle(suspended)
    assert Key("Deployment", "shop-api") in world.children


def test_a_pool_that_is_no_longer_wanted_goes_and_so_does_an_ingress() -> None:
    world = World()
    world.settle(spec_of(extraPools=[{"name": "slow"}], api={"ingress": {"enabled": True, "host": "a.example.com"}}))
    assert {"Deployment shop-worker-slow", "Ingress shop-api"} <= world.names()
    world.settle(spec_of())
    assert {"Deployment shop-worker-slow", "Ingress shop-api"} & world.names() == {"Deployment shop-worker-slow"}
    world.children[Key("Deployment", "shop-worker-slow")]["spec"]["replicas"] = 0  # its workers have drained
    world.settle(spec_of())
    assert "Deployment shop-worker-slow" not in world.names()


def test_children_of_an_earlier_cluster_of_the_same_name_make_room() -> None:
    world = World()
    world.settle(spec_of())
    world.uid = "another"
    made = world.plan(spec_of())
    deleted = {(action.kind, action.name) for action in made.actions if isinstance(action, Delete)}
    assert (SERVICE, "shop-api") in deleted
    assert (DEPLOYMENT, "shop-worker") in deleted
    world.settle(spec_of())
    assert all(world.look().owner(body) == "ours" for body in world.children.values())


def test_orphans_that_carry_our_labels_are_adopted() -> None:
    world = World()
    world.settle(spec_of())
    body = world.children[Key("Deployment", "shop-worker")]
    body["metadata"]["ownerReferences"] = []
    adopted = [action for action in world.plan(spec_of()).actions if isinstance(action, Apply)]
    assert [(key_of(action.manifest), action.uid) for action in adopted] == [
        (Key("Deployment", "shop-worker"), body["metadata"]["uid"])
    ]
