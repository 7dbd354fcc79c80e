"""Cancellation that races completion, and handlers that do not listen."""

import asyncio
import random
from uuid import UUID

from faults.scene import DEADLINE_S, Scene, Stopwatch
from taskflow_core.errors import IllegalTransition
from waiting import eventually_async

STUCK = 70


async def test_13_cancel_racing_completion_a_thousand_times_gives_one_end_each(scene: Scene) -> None:
    """Nothing is recovered; history, events and statuses must tell the same story."""
    await scene.worker(slots="40")
    await scene.worker(slots="40")
    refused = 0
    ids: list[UUID] = []

    async def cancel(task_id: UUID) -> None:
        nonlocal refused
        await asyncio.sleep(random.uniform(0, 0.6))
        try:
            await scene.client.cancel(task_id)
        except IllegalTransition:
            refused += 1

    for _ in range(10):
        some = await scene.submit(100, "NAP", lambda number: {"seconds": 1.5 if number % 10 == 0 else number / 200})
        await asyncio.gather(*map(cancel, some))
        ids += some
    await scene.until_final(ids)
    figures = await scene.report("13 cancel racing completion", ids, note=f"{refused} cancels came too late")
    assert figures.completed + figures.canceled == 1000
    assert min(figures.completed, figures.canceled) > 0, "both sides win sometimes"
    assert refused <= figures.completed
    ends = await scene.query(
        "SELECT t.status, (SELECT array_agg(kind) FROM task_events e WHERE e.task_id = t.id "
        "AND kind IN ('task.completed', 'task.canceled', 'task.failed')), "
        "(SELECT array_agg(outcome) FROM task_attempts a WHERE a.task_id = t.id), attempt FROM tasks t"
    )
    for status, events, outcomes, attempt in ends:
        assert events == [f"task.{status.lower()}"]
        assert outcomes == ([status.lower()] if attempt else None)


async def test_13b_a_handler_that_ignores_cancel_is_stopped_with_its_process_and_the_others_go_on(
    scene: Scene,
) -> None:
    """A supervisor starts the worker anew. Recovery: from the cancel until its neighbours have completed."""
    await scene.scheduler()
    worker = await scene.worker(slots="8")
    deaf = await scene.submit(1, "DEAF", lambda _: {"seconds": 600})
    others = await scene.submit(4, "NAP", lambda _: {"seconds": 600}, max_attempts=1)
    await scene.until("status = 'RUNNING'", count=5)
    await scene.query("UPDATE tasks SET payload = '{\"seconds\": 0.1}' WHERE type = 'NAP'")
    await scene.client.cancel(deaf[0])
    watch = Stopwatch()
    statuses = [worker]

    async def ended() -> bool:
        if (now := scene.keep_alive(statuses[-1])) is not statuses[-1]:
            statuses.append(now)
        return await scene.count("finished_at IS NOT NULL") == 5

    await eventually_async(ended, DEADLINE_S)
    assert worker.process.returncode == STUCK
    assert await scene.outcomes(deaf) == {("canceled",)}
    assert await scene.outcomes(others) == {("released", "completed")}
    figures = await scene.report("13b a handler ignores its cancel", deaf + others, recovery_s=watch.read())
    assert (figures.canceled, figures.completed) == (1, 4)
