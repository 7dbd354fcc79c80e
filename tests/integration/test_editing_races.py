"""Tasks that are changed while real workers take them run once: not twice, not early, not elsewhere, not never."""

import asyncio
import random
from typing import Any
from uuid import UUID

import psycopg

from children import Children, Client
from taskflow_core import editing
from taskflow_core.audit import audit
from taskflow_core.database import plain_url
from taskflow_core.errors import Conflict
from taskflow_core.settings import Settings

ONCE = [(1, "completed")]
TASKS = 60


async def edit(client: Client, task_id: UUID, *, withdraw: bool = True, **changes: Any) -> None:
    """Change a task as the API does; without `withdraw`, as if a worker had popped the old delivery before."""
    async with client.sessions() as session:
        edited = await editing.edit(session, task_id, changes, actor=client.actor)
        await session.commit()
    if edited.replaced is not None:
        if withdraw:
            await client.queue.withdraw([edited.replaced])
        await client.queue.deliver([edited.task])


async def test_a_delivery_from_before_a_change_starts_nothing(nursery: Children, client: Client) -> None:
    moved, postponed = await client.submit("ECHO"), await client.submit("ECHO")
    await edit(client, moved, withdraw=False, queue="elsewhere")
    await edit(client, postponed, withdraw=False, delay_s=3600.0)
    nursery.worker(queues="default")
    await client.until(await client.submit("ECHO"), "COMPLETED")  # it came behind them in the same list
    for task_id in (moved, postponed):
        task = await client.get(task_id)
        assert (task.status, task.attempt, task.fence) == ("PENDING", 0, 0)
    await edit(client, postponed, delay_s=0.0)
    nursery.worker(queues="elsewhere")
    for task_id in (moved, postponed):
        await client.until(task_id, "COMPLETED")
        assert await client.history(task_id) == ONCE


async def test_tasks_that_are_changed_all_the_time_run_once_each(
    nursery: Children, client: Client, settings: Settings
) -> None:
    chance = random.Random(7)
    nursery.scheduler(sweep_interval_s="0.1")
    ids = [await client.submit("ECHO", queue="low" if n % 3 else "default") for n in range(TASKS)]

    async def change(task_id: UUID) -> None:
        for _ in range(chance.randrange(1, 5)):
            changes = chance.choice(
                ({"queue": "high"}, {"queue": "low"}, {"priority": chance.choice((-1, 0, 1))}, {"delay_s": 0.3})
            )
            try:
                await edit(client, task_id, withdraw=chance.random() < 0.5, **changes)
            except Conflict:
                return  # it runs, or has run

    changing = asyncio.gather(*(change(task_id) for task_id in ids[: TASKS // 2]))
    nursery.worker(queues="high,default")
    nursery.worker(queues="low")
    await asyncio.gather(changing, *(change(task_id) for task_id in ids[TASKS // 2 :]))
    for task_id in ids:
        await client.until(task_id, "COMPLETED")
        assert await client.history(task_id) == ONCE
    with psycopg.connect(plain_url(settings.database_url)) as connection:
        connection.rollback()
        assert [finding for finding in audit(connection).findings if finding.violations] == []
