"""Workers told to stop: under load, in the middle of a pop, and while PostgreSQL holds them up."""

import asyncio
import os
import random
import re
import signal
from collections.abc import Sequence
from functools import partial
from uuid import UUID

from psycopg import AsyncConnection

from children import Child
from faults.scene import DEADLINE_S, Scene, Stopwatch
from taskflow_core.database import plain_url
from waiting import eventually_async

SIGTERMS = 1000
POP_WINDOW_S = 600  # a bound: about two minutes on two cores
STARTED = re.compile(r'"worker_id":"[^"]*-(\d+)-[0-9a-f]{12}"[^\n]*"worker.started"')


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
    """A thousand workers are told to stop within 10 ms of a delivery; what they popped they put back themselves."""
    source = scene.nursery.start("taskflow_fork", slots="4")
    told: set[int] = set()
    ids: list[UUID] = []

    async def fresh() -> list[int]:
        return [pid for pid in map(int, STARTED.findall(source.log.read_text())) if pid not in told]

    watch = Stopwatch()
    while len(told) < SIGTERMS and watch.read() < POP_WINDOW_S:
        pids = await eventually_async(fresh)
        assert pids
        tasks = asyncio.create_task(scene.submit(2 * len(pids), "NAP", lambda _: {"seconds": 0.01}, max_attempts=1))
        for pid in pids:
            await asyncio.sleep(random.uniform(0, 0.01))
            os.kill(pid, signal.SIGTERM)
        told.update(pids)
        ids += await tasks
    await scene.until_final(ids, timeout=30)
    assert not source.said("worker.failed"), source.log.read_text()
    assert len(told) >= SIGTERMS
    assert await scene.outcomes(ids) == {("completed",)}
    await scene.report("11b SIGTERM in the pop window", ids, note=f"{len(told)} SIGTERMs")


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


async def test_11d_what_is_killed_at_the_edge_of_the_grace_runs_once_more_even_after_a_time_without_workers(
    scene: Scene,
) -> None:
    """SIGTERM, and SIGKILL when the grace of 1 s ends, as a kubelet does. Recovery: from a new worker to the last end.

    Some tasks end within the grace, some at its edge, two ignore that they are told to stop.
    """
    await scene.scheduler()
    worker = await scene.worker(slots="26", shutdown_grace_s="1")
    ids = await scene.submit(24, "NAP", lambda number: {"seconds": 0.5 + number / 12}, max_attempts=2)
    ids += await scene.submit(2, "DEAF", lambda _: {"seconds": 4.0}, max_attempts=2)
    await scene.until("attempt = 1", count=len(ids))
    worker.kill(signal.SIGTERM)
    told = Stopwatch()

    async def grace_is_over() -> bool:
        return told.read() > 1.0

    async def all_delivered_again() -> bool:
        waiting, left = await scene.waiting(), await scene.count("finished_at IS NULL")
        return waiting == left == await scene.count("status = 'PENDING'")

    await eventually_async(grace_is_over)
    worker.kill(signal.SIGKILL)
    await eventually_async(partial(have_ended, [worker]))
    await eventually_async(all_delivered_again, DEADLINE_S)
    left = await scene.waiting()
    await scene.worker(slots="26")
    watch = Stopwatch()
    await scene.until_final(ids)
    outcomes = await scene.outcomes(ids)
    assert outcomes <= {("completed",), ("released", "completed"), ("lost", "completed")}
    assert ("lost", "completed") in outcomes, "the two that ignored it were killed"
    note = f"{left} waited without a worker, each once"
    figures = await scene.report("11d killed at the edge of the grace", ids, recovery_s=watch.read(), note=note)
    assert figures.completed == len(ids)
