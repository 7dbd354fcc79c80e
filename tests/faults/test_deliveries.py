"""Deliveries that come too often, too early, from the past, or not at all."""

import asyncio
import shutil
import signal
from datetime import datetime
from pathlib import Path

from redis.asyncio import Redis

from faults.scene import DEADLINE_S, Scene, Stopwatch
from taskflow_core.queue import QUEUE_KEY
from waiting import eventually_async

STORED = "appendonlydir"


async def test_4_one_task_delivered_a_hundred_times_at_once_is_claimed_once(scene: Scene) -> None:
    """Nothing is recovered here."""
    ids = await scene.submit(1, "NAP", lambda _: {"seconds": 1}, deliver=False)
    await scene.deliver(times=100)
    assert await scene.waiting() == 100
    await asyncio.gather(scene.worker(slots="40"), scene.worker(slots="40"))
    await scene.until_final(ids)

    async def all_taken() -> bool:
        return await scene.waiting() == 0

    await eventually_async(all_taken)
    assert await scene.outcomes(ids) == {("completed",)}
    assert await scene.count("fence = 1") == 1
    await scene.report("4 one task delivered 100 times", ids)


async def test_5_a_stale_duplicate_during_backoff_is_not_claimed_early(scene: Scene) -> None:
    """The first attempts fail; their old deliveries then come again and again until the second ones have run."""
    ids = await scene.submit(20, "BREAK", lambda _: {"until_attempt": 2}, deliver=False)
    stale = await scene.deliver()
    await scene.worker()
    await scene.until("status = 'PENDING' AND attempt = 1", count=20)
    due: dict[object, datetime] = dict(await scene.query("SELECT id, run_at FROM tasks"))
    await scene.scheduler()

    async def ended() -> bool:
        await scene.client.queue.deliver(stale)
        return await scene.count("finished_at IS NOT NULL") == len(ids)

    await eventually_async(ended, DEADLINE_S)
    started = await scene.query("SELECT task_id, started_at FROM task_attempts WHERE outcome = 'completed'")
    assert [task_id for task_id, moment in started if moment < due[task_id]] == []
    assert await scene.outcomes(ids) == {("retried", "completed")}
    await scene.report("5 stale duplicates during backoff", ids)


async def test_6_flushall_with_5000_waiting_and_50_running_loses_nothing(scene: Scene) -> None:
    """Recovery: from the flush until the first delivery is in Redis again."""
    await scene.scheduler()
    await asyncio.gather(scene.worker(slots="25"), scene.worker(slots="25"))
    running = await scene.submit(50, "NAP", lambda _: {"seconds": 4.0})
    await scene.until("status = 'RUNNING'", count=50)
    waiting = await scene.submit(5000)
    assert await scene.waiting() == 5000
    await scene.client.queue.redis.flushall()
    watch = Stopwatch()

    async def delivered_again() -> bool:
        return await scene.waiting() > 0

    await eventually_async(delivered_again, 10)
    recovery_s = watch.read()
    await scene.until_final(running + waiting)
    note = f"all done {watch.read():.1f} s after the flush"
    assert await scene.outcomes(running + waiting) == {("completed",)}
    await scene.report("6 FLUSHALL, 5,000 waiting, 50 running", running + waiting, recovery_s=recovery_s, note=note)


async def test_8_redis_restarted_from_an_old_dump_is_repaired(scene: Scene) -> None:
    """The dump knows finished tasks and none of the waiting ones. Recovery: from the start until all have ended."""
    await scene.scheduler()
    await scene.until_marked()
    old = await scene.submit(100)
    stored = Path(scene.servers.valkey.folder) / STORED
    kept = stored.with_name("kept")
    shutil.copytree(stored, kept)
    worker = await scene.worker()
    await scene.until_final(old)
    assert worker.stop() == 0
    new = await scene.submit(100)
    scene.servers.valkey.stop(signal.SIGKILL)
    shutil.rmtree(stored)
    kept.rename(stored)
    scene.servers.valkey.start()
    assert await scene.waiting() == 100, "the dump holds the deliveries of the finished tasks"
    watch = Stopwatch()
    await scene.worker()
    await scene.until_final(new, timeout=30)
    recovery_s = watch.read()
    assert await scene.outcomes(old + new) == {("completed",)}
    await scene.report("8 Redis restarted from an old dump", old + new, recovery_s=recovery_s)


async def test_8b_deliveries_that_a_dead_client_popped_are_repaired(scene: Scene) -> None:
    """Recovery: from the pop until all have ended; some are popped ahead of others, some leave an empty list."""
    await scene.scheduler()
    await scene.until_marked()
    ids = await scene.submit(60)
    client: Redis = Redis.from_url(scene.servers.valkey.url)
    popped = await client.blmpop(5, 1, QUEUE_KEY + "default", direction="LEFT", count=40)
    assert popped is not None
    await client.aclose()
    watch = Stopwatch()
    await scene.worker()
    await scene.until_final(ids, timeout=30)
    recovery_s = watch.read()
    assert await scene.outcomes(ids) == {("completed",)}
    await scene.report("8b popped by a client that died", ids, recovery_s=recovery_s)
