"""Processes whose clocks are wrong: only the database's counts."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
from redis.asyncio import Redis

from children import Child
from faults.scene import Scene, Stopwatch
from taskflow_core.lanes import lanes_of
from taskflow_core.queue import QUEUE_KEY, parse_job_id
from waiting import eventually_async

LIBRARIES = ("/usr/lib", "/usr/local/lib", "/opt/homebrew/lib")
SKEW = timedelta(minutes=10)


async def test_14_two_schedulers_and_ten_minutes_of_skew_enqueue_once_and_expire_nothing_early(scene: Scene) -> None:
    """One scheduler and one worker live 10 minutes ahead, the others behind; nothing is recovered.

    2,000 tasks become due at once and must stand in the lists once each; then tasks run for two leases.
    """
    with clock(scene, ahead=True):
        one = await scene.scheduler(sweep_interval_s="0.1")
    with clock(scene, ahead=False):
        two = await scene.scheduler(sweep_interval_s="0.1")
    ids = await scene.submit(2000, delay_s=2)

    async def all_enqueued() -> bool:
        return len(await enqueued(scene)) >= 2000

    await eventually_async(all_enqueued)
    found = await enqueued(scene)
    assert len(found) == len(set(found)) == 2000
    with clock(scene, ahead=True):
        fast = await scene.worker()
    with clock(scene, ahead=False):
        slow = await scene.worker()
    await scene.until_final(ids)
    long = await scene.submit(20, "NAP", lambda _: {"seconds": 4.0})
    watch = Stopwatch()
    await scene.until_final(long)
    assert watch.read() >= 4
    for child, expected in ((one, SKEW), (two, -SKEW), (fast, SKEW), (slow, -SKEW)):
        assert abs(skew(child) - expected) < timedelta(minutes=2)
    assert await scene.outcomes(ids + long) == {("completed",)}
    assert await scene.count("enqueued_at < run_at OR claimed_at < run_at") == 0
    await scene.report("14 two schedulers, clocks 10 min off", ids + long)


@contextmanager
def clock(scene: Scene, *, ahead: bool) -> Iterator[None]:
    """Start processes whose wall clock is 10 minutes off; the monotonic one, which only measures, is right."""
    library = next((file for folder in LIBRARIES for file in Path(folder).glob("**/faketime/libfaketimeMT.so.1")), None)
    assert library, "install libfaketime (on Debian and Ubuntu: apt-get install faketime)"
    before = dict(scene.nursery.env)
    offset = f"{'+' if ahead else '-'}{SKEW.total_seconds():.0f}s"
    scene.nursery.env |= {"LD_PRELOAD": str(library), "FAKETIME": offset, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    try:
        yield
    finally:
        scene.nursery.env = before


def skew(child: Child) -> timedelta:
    """Return how far a child's clock is ahead of ours, by the time of its first log line and its file's own."""
    first = orjson.loads(child.log.read_bytes().partition(b"\n")[0])
    wrote = datetime.fromtimestamp(child.log.stat().st_mtime, UTC)
    return datetime.fromisoformat(first["timestamp"]) - wrote


async def enqueued(scene: Scene) -> list[object]:
    """Return the task ids in all lists."""
    async with Redis.from_url(scene.servers.valkey.url) as redis:
        raw = [item for lane in lanes_of(["default"]) for item in await redis.lrange(QUEUE_KEY + lane, 0, -1)]
    return [delivery.task_id for item in raw if (delivery := parse_job_id(item))]
