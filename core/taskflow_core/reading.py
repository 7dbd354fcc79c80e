"""Tasks read by their ids: requests that arrive together share one statement."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

import psycopg
from psycopg import sql

from taskflow_core.actors import Actor
from taskflow_core.batches import RUNNERS, Batches, Call
from taskflow_core.errors import NotFound
from taskflow_core.inserts import TaskRow
from taskflow_core.links import Link
from taskflow_core.settings import Settings

COLUMNS = sql.SQL(", ").join(sql.Identifier("t", field.name) for field in fields(TaskRow) if field.name != "asked_at")
READ = (
    sql.SQL("""
SELECT n.place, {} FROM unnest(%s::uuid[], %s::uuid[]) WITH ORDINALITY AS n(id, owner_id, place)
JOIN tasks t ON t.id = n.id AND (n.owner_id IS NULL OR t.owner_id = n.owner_id)
""")
    .format(COLUMNS)
    .as_string()
)


class _Wanted(NamedTuple):
    task_id: UUID
    owner_id: UUID | None


_Call: TypeAlias = Call[_Wanted, TaskRow]


class Reading:
    """Reads tasks. One for a process."""

    def __init__(self, settings: Settings) -> None:
        links = [Link(settings, service="api-reading") for _ in range(RUNNERS)]
        self._batches: Batches[_Wanted, TaskRow] = Batches(self._run, links, timeout_s=settings.database_timeout_s)

    async def get(self, task_id: UUID, *, actor: Actor) -> TaskRow:
        """Return one task.

        Raises:
            NotFound: no such task, or another owner's.
            Unavailable: the database is away or overloaded.
        """
        return await self._batches.ask(_Wanted(task_id, None if actor.sees_all else actor.user_id))

    async def close(self) -> None:
        """Answer what waits."""
        await self._batches.close()

    async def _run(self, link: Link, batch: Sequence[_Call]) -> None:
        parameters = [
            [call.question.task_id for call in batch],
            [call.question.owner_id for call in batch],
        ]
        try:
            found = await _rows(link, parameters)
        except psycopg.OperationalError:  # an idle connection may have died unseen: try a new one
            await link.drop()
            found = await _rows(link, parameters)
        for place, *values in found:
            batch[place - 1].succeed(TaskRow(*values))
        for call in batch:
            call.fail(NotFound(f"there is no task {call.question.task_id}"))


async def _rows(link: Link, parameters: list[Any]) -> list[Any]:
    return await (await (await link.get()).execute(READ, parameters)).fetchall()
