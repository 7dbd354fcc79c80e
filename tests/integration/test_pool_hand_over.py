"""What an operator that died between the phases left in Valkey and on the pods, and what the next one does with it."""

from collections.abc import AsyncIterator

import pytest

from pods import at_once
from pool_stage import Stage, stage_on, until
from taskflow_core.beacons import BELL_KEY, DRAIN_KEY
from taskflow_core.scaling_policy import Mode

MANUAL = at_once(mode=Mode.MANUAL)


@pytest.fixture
async def stage(redis_url: str) -> AsyncIterator[Stage]:
    async with stage_on(redis_url) as made:
        yield made


async def test_a_cost_that_a_dead_operator_left_is_taken_away_from_whom_it_does_not_belong_to(stage: Stage) -> None:
    stage.pod("busy", held=1).cost = -1000
    stage.pod("idle")
    await stage.lit()
    await stage.tick()
    assert stage.cluster.deleted == ["idle"]
    assert ("busy", None) in stage.cluster.costs


async def test_flags_that_a_dead_operator_left_are_lowered_at_the_first_look_and_the_workers_go_on(
    stage: Stage,
) -> None:
    """One has heard its bell, the other was too slow for that."""
    stage.pod("drained")
    stage.pod("deaf", held=None, phase="Pending")
    await stage.lit()
    for name in ("drained", "deaf"):
        await stage.redis.set(DRAIN_KEY + name, "theirs", ex=60)
        await stage.redis.rpush(BELL_KEY + name, "theirs")
    await until(lambda: stage.workers["drained"].flag.raised)
    await stage.tick(target=2, policy=MANUAL)
    assert (await stage.flags(), await stage.redis.exists(BELL_KEY + "deaf")) == (set(), 0)
    await stage.push(1)
    await until(lambda: stage.workers["drained"].held == 1)


async def test_flags_of_pods_that_are_going_stay_when_another_operator_takes_over(stage: Stage) -> None:
    stage.pod("going")
    stage.pod("staying")
    await stage.lit()
    await stage.redis.set(DRAIN_KEY + "going", "theirs", ex=60)
    await stage.tick(replicas=1, target=1, policy=MANUAL)
    assert await stage.flags() == {"going"}


async def test_another_operators_flag_is_not_ours_to_count_on(stage: Stage) -> None:
    stage.pod("idle")
    stage.pod("busy", held=1)
    await stage.lit()
    await stage.tick(target=2, policy=MANUAL)
    await stage.redis.set(DRAIN_KEY + "idle", "theirs", ex=60)
    report = await stage.tick()
    assert (stage.cluster.written, report.scaling_limited.reason) == ([], "BusyWorkers")
    assert await stage.flags() == {"idle"}
