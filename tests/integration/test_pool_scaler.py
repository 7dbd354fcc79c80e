"""The pool scaler on a real Valkey, with the workers' real inboxes, flags and beacons."""

import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from pods import at_once
from pool_stage import Stage, stage_on, until
from taskflow_cli.embedded.ports import free_port
from taskflow_core.beacons import DRAIN_KEY, OWNER_KEY, RUNS_KEY, run_sample
from taskflow_core.clock import utc_now
from taskflow_core.queue import QUEUE_KEY
from taskflow_core.scaling import Overrides, Reason
from taskflow_core.scaling_policy import Mode
from taskflow_operator.scaler import PoolScaler
from waiting import eventually_async

MANUAL = at_once(mode=Mode.MANUAL)


@pytest.fixture
async def stage(redis_url: str) -> AsyncIterator[Stage]:
    async with stage_on(redis_url) as made:
        yield made


async def test_a_pool_grows_with_what_waits_and_runs_and_says_why(stage: Stage) -> None:
    stage.pod("a", held=1)
    await stage.lit()
    await stage.push(3, age_s=7, lane="mail")
    await stage.push(1, lane="mail:high")
    await stage.push(1, lane="mail:low")
    report = await stage.tick(queues=["default", "mail"])
    assert stage.cluster.written == [6]
    assert report.events == ("1 -> 6: waiting 5, running 1",)
    assert (report.replicas, report.busy, report.idle, report.draining) == (6, 1, 0, 0)
    assert 7 <= report.demand.oldest_s < 60
    assert report.broker_reachable.status
    assert report.scaling_active.status
    assert not report.scaling_limited.status


async def test_only_idle_workers_go_the_longest_idle_first_and_they_are_marked(stage: Stage) -> None:
    for name, held in (("old", 0), ("busy", 1), ("older", 0), ("young", 0)):
        stage.pod(name, held=held)
        await stage.lit()
    report = await stage.tick(policy=at_once(minReplicas=2))
    assert (sorted(stage.cluster.deleted), stage.cluster.written) == (["old", "older"], [2])
    assert sorted(stage.cluster.costs) == [("old", -1000), ("older", -1000)]
    assert await stage.flags() == {"old", "older"}
    assert report.events == ("4 -> 2: waiting 0, running 1; minReplicas holds it up",)


async def test_a_busy_worker_stays_and_the_condition_says_so(stage: Stage) -> None:
    for name in ("a", "b"):
        stage.pod(name, held=1)
    await stage.lit()
    stage.workers["a"].held = stage.workers["b"].held = 3
    report = await stage.tick(policy=at_once(maxReplicas=1))
    assert (stage.cluster.written, report.scaling_limited.reason) == ([], "BusyWorkers")
    assert await stage.flags() == set()


async def test_a_pod_without_a_worker_goes_before_an_idle_one(stage: Stage) -> None:
    stage.pod("idle")
    await stage.lit()
    stage.pod("pending", held=None, phase="Pending", ready=False)
    stage.pod("crashed", held=None, ready=False, crashed=True)
    await stage.tick(policy=at_once(minReplicas=1))
    assert sorted(stage.cluster.deleted) == ["crashed", "pending"]


async def test_a_worker_that_says_nothing_counts_as_busy(stage: Stage) -> None:
    stage.pod("silent", held=None)
    report = await stage.tick()
    assert (stage.cluster.written, report.scaling_limited.reason) == ([], "BusyWorkers")


@pytest.mark.parametrize(
    ("pod", "view", "reason"),
    [
        pytest.param({}, {"rollout_in_progress": True}, "RolloutInProgress", id="a rollout comes first"),
        pytest.param({"ready": False}, {}, "PodsNotReady", id="the ReplicaSet would delete that one first"),
        pytest.param({}, {"replicas": 1, "target": 0, "policy": MANUAL}, "Settling", id="an earlier step is not over"),
    ],
)
async def test_nothing_goes_while_the_wrong_pod_could(
    stage: Stage, pod: dict[str, Any], view: dict[str, Any], reason: str
) -> None:
    stage.pod("idle")
    stage.pod("other", held=1, **pod)
    await stage.lit()
    report = await stage.tick(**view)
    assert (stage.cluster.written, report.scaling_limited.reason) == ([], reason)
    assert await stage.flags() == set()


async def test_a_conflict_releases_everything_and_the_next_tick_starts_over(stage: Stage) -> None:
    stage.pod("idle")
    await stage.lit()
    stage.cluster.conflicts = 1
    report = await stage.tick()
    assert (report.scaling_limited.reason, report.replicas, report.events) == ("Conflict", 1, ())
    assert (await stage.flags(), stage.cluster.pods["idle"].cost) == (set(), None)
    assert (await stage.tick()).replicas == 0


async def test_an_unknown_answer_leaves_the_flags_up_because_the_count_may_be_written(stage: Stage) -> None:
    stage.pod("idle")
    await stage.lit()
    stage.cluster.mute = True
    with pytest.raises(ConnectionError):
        await stage.tick()
    assert await stage.flags() == {"idle"}


async def test_a_drained_worker_pops_nothing_and_goes_on_when_it_is_released(stage: Stage) -> None:
    stage.pod("idle")
    await stage.lit()
    stage.cluster.lazy = True
    await stage.tick()
    ids = await stage.push(3)
    await until(lambda: stage.workers["idle"].flag.raised)
    assert await stage.redis.llen(QUEUE_KEY + "default") == len(ids)
    await stage.redis.delete(DRAIN_KEY + "idle")
    await until(lambda: stage.workers["idle"].held == len(ids))


async def test_a_person_who_sets_the_number_waits_for_busy_workers_while_they_take_no_more(stage: Stage) -> None:
    stage.pod("one", held=1)
    stage.pod("two", held=2)
    await stage.lit()
    first = await stage.tick(policy=MANUAL, target=1)
    assert (first.replicas, first.scaling_limited.reason, first.decision.reason) == (2, "BusyWorkers", Reason.FIXED)
    assert await stage.flags() == {"one"}
    await stage.push(1)
    await until(lambda: stage.workers["two"].held == 3)
    stage.workers["one"].held = 0
    stage.workers["one"].light.changed()

    async def is_one_left() -> bool:  # as soon as a tick has seen that the worker is idle
        return (await stage.tick(policy=MANUAL, target=1)).replicas == 1

    await eventually_async(is_one_left)
    assert stage.cluster.deleted == ["one"]


async def test_a_person_who_changes_their_mind_lets_the_workers_go_on(stage: Stage) -> None:
    stage.pod("one", held=1)
    await stage.lit()
    await stage.tick(policy=MANUAL, target=0)
    assert await stage.flags() == {"one"}
    await stage.tick(policy=MANUAL, target=1)
    assert await stage.flags() == set()


async def test_suspending_drains_every_worker_and_takes_the_idle_ones(stage: Stage) -> None:
    stage.pod("busy", held=1)
    stage.pod("idle")
    await stage.lit()
    report = await stage.tick(policy=at_once(minReplicas=2), overrides=Overrides(suspend=True))
    assert (stage.cluster.deleted, report.scaling_limited.reason) == (["idle"], "BusyWorkers")
    assert await stage.flags() == {"busy", "idle"}


async def test_a_dry_run_says_what_it_would_do_and_does_nothing(stage: Stage) -> None:
    await stage.push(4)
    report = await stage.tick(policy=at_once(mode=Mode.DRY_RUN))
    assert (report.decision.desired, report.replicas, stage.cluster.written, report.events) == (4, 0, [], ())


async def test_without_redis_the_pool_keeps_its_size_and_says_what_is_wrong(stage: Stage) -> None:
    stage.pod("idle")
    nowhere = PoolScaler(stage.cluster, SecretStr(f"redis://127.0.0.1:{free_port()}/0"))
    for _ in range(3):
        report = await nowhere.tick(stage.cluster.view(), utc_now())
    await nowhere.close()
    assert (report.replicas, stage.cluster.written) == (1, [])
    assert (report.broker_reachable.status, report.broker_reachable.reason) == (False, "RedisUnreachable")
    assert (report.scaling_active.status, report.scaling_active.reason) == (False, "Fallback")


async def test_a_redis_of_another_cluster_is_refused_with_its_uid(stage: Stage) -> None:
    await stage.redis.set(OWNER_KEY, "uid-2")
    report = await stage.tick()
    assert report.broker_reachable.reason == "RedisShared"
    assert "uid-2" in report.broker_reachable.message
    await stage.redis.set(OWNER_KEY, "uid-1", ex=5)
    assert (await stage.tick()).broker_reachable.status
    await stage.tick()
    assert await stage.redis.ttl(OWNER_KEY) > 5


async def test_tasks_of_a_queue_that_workers_know_to_be_paused_ask_for_nobody(stage: Stage) -> None:
    stage.pod("a")
    stage.workers["a"].inbox.paused = frozenset({"default"})
    await stage.lit()
    await stage.push(9)
    report = await stage.tick(queues=("default", "low"))
    assert (report.demand.waiting, stage.cluster.replicas) == (0, 0)


async def test_the_median_run_time_comes_from_twenty_samples_at_least(stage: Stage) -> None:
    policy = at_once(latencySLOSeconds=30)
    now = datetime.now(UTC)
    await _runs(stage, 19, 3.0)
    assert (await stage.tick(policy=policy)).demand.run_s is None
    await _runs(stage, 22, 5.0)
    assert (await stage.tick(policy=policy)).demand.run_s == 5.0
    late = await stage.tick(policy=policy, at=now + timedelta(minutes=11))
    assert late.demand.run_s is None


async def test_workers_keep_their_run_times_a_bounded_list_a_queue(stage: Stage) -> None:
    stage.pod("a")
    for _ in range(80):
        stage.workers["a"].light.ran("default", 0.25)
    stage.workers["a"].light.changed()

    async def kept() -> bool:
        return await stage.redis.llen(RUNS_KEY + "default") == 50

    await eventually_async(kept)
    assert 0 < await stage.redis.ttl(RUNS_KEY + "default") <= 600


async def test_8_a_rollout_of_hour_long_tasks_and_a_scale_in_at_once_take_no_busy_worker(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four old pods with tasks, two new idle ones, one of the busy ones not Ready; the load asks for four."""
    for name in ("old-1", "old-2", "old-3", "old-4"):
        stage.pod(name, held=1)
    for name in ("new-1", "new-2"):
        stage.pod(name)
    await stage.lit()
    unready = stage.cluster.pods["old-2"]
    unready.ready = False
    rollout = await stage.tick(rollout_in_progress=True)
    after_it = await stage.tick()
    unready.ready = True
    at_last = await stage.tick()
    assert (rollout.scaling_limited.reason, after_it.scaling_limited.reason) == ("RolloutInProgress", "PodsNotReady")
    assert (sorted(stage.cluster.deleted), stage.cluster.written, at_last.busy) == (["new-1", "new-2"], [4], 4)
    held = await stage.tick(policy=at_once(maxReplicas=1))
    assert (stage.cluster.written, held.scaling_limited.reason) == ([4], "BusyWorkers")
    with capsys.disabled():
        sys.stdout.write(f"\n4 ticks, {len(stage.cluster.deleted)} idle pods deleted, 0 of 4 busy ones\n")


async def _runs(stage: Stage, count: int, seconds: float) -> None:
    sample = run_sample(at_s=utc_now().timestamp(), seconds=seconds)
    await stage.redis.rpush(RUNS_KEY + "default", *[sample] * count)
