"""Workers told to stop: under load, in the middle of a pop, and while PostgreSQL holds them up."""

import asyncio
import random
import signal
from collections.abc import Sequence
from functools import partial

from psycopg import AsyncConnection

from children import Child
from faults.scene import DEADLINE_S, Scene, Stopwatch
from taskflow_core.database import plain_url
from waiting import eventually_async

POP_WINDOW_S = 20.0


async def have_ended(workers: Sequence[Child]) -> bool:
    return all(worker.process.poll() is not None for worker in workers)


async def test_11_sigterm_under_load_fails_nothing_and_burns_no_attempt(scene: Scene) -> None:
    """The grace is 1 s, some tasks take 4 s, every task has one attempt.

    Recovery: from SIGTERM until the slower worker is gone; its grace is part of it.
    """
    await scene.scheduler()
    stopped = [await scene.worker(slots="8", shutdown_grace_s="1") for _ in range(2)]
    ids = await scene.submit(4, "NAP", lambda _: {"seconds": 4.0}, max_attempts=1)
    ids += await scene.submit(300, "NAP", lambda number: {"seconds": number % 5 / 10}, max_attempts=1)
    await scene.until("status = 'COMPLETED'", count=20)
    watch = Stopwatch()
    for worker in stopped:
        worker.kill(signal.SIGTERM)

    await eventually_async(partial(have_ended, stopped), 20)
    recovery_s = watch.read()
    assert [worker.process.returncode for worker in stopped] == [0, 0]
    assert await scene.count("status = 'RUNNING'") == 0
    await scene.worker(slots="50")
    await scene.until_final(ids)
    assert await scene.outcomes(ids) == {("completed",), ("released", "completed")}
    figures = await scene.report("11 SIGTERM under load", ids, recovery_s=recovery_s)
    assert figures.completed == len(ids)


async def test_11b_sigterm_in_the_moment_of_a_pop_loses_nothing_even_without_a_scheduler(scene: Scene) -> None:
    """For 20 s workers are told to stop within 10 ms of a delivery; what they popped they must put back themselves."""
    ids = []
    terms = 0
    watch = Stopwatch()
    while watch.read() < POP_WINDOW_S:
        workers = await asyncio.gather(*(scene.worker(slots="4") for _ in range(4)))
        tasks = asyncio.create_task(scene.submit(16, "NAP", lambda _: {"seconds": 0.01}, max_attempts=1))
        for worker in workers:
            await asyncio.sleep(random.uniform(0, 0.01))
            worker.kill(signal.SIGTERM)
            terms += 1
        ids += await tasks

    await eventually_async(partial(have_ended, scene.workers))
    await scene.worker(slots="50")
    await scene.until_final(ids, timeout=30)
    assert await scene.outcomes(ids) == {("completed",)}
    await scene.report("11b SIGTERM in the pop window", ids, note=f"{terms} SIGTERMs")


async def test_11c_what_a_stopping_worker_could_not_write_is_recovered_with_its_lease(scene: Scene) -> None:
    """The end hangs on a lock until the worker has given up. Recovery: from the worker's end to the task's."""
    await scene.scheduler()
    worker = await scene.worker(database_timeout_s="1", shutdown_grace_s="0.5")
    ids = await scene.submit(4, "NAP", lambda _: {"seconds": 1.0})
    await scene.until("status = 'RUNNING'", count=4)
    async with await AsyncConnection.connect(plain_url(scene.settings.database_url)) as holder:
        await holder.execute("SELECT 1 FROM tasks FOR UPDATE")
        worker.kill(signal.SIGTERM)

        await eventually_async(partial(have_ended, [worker]), DEADLINE_S)
    watch = Stopwatch()
    await scene.worker()
    await scene.until_final(ids, timeout=30)
    assert await scene.outcomes(ids) == {("lost", "completed")}
    await scene.report("11c stopped while PostgreSQL hangs", ids, recovery_s=watch.read())
