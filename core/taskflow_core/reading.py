"""Tasks read by their ids, by requests that share statements, and whatever else is read outside of a transaction."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import fields
from typing import Any, NamedTuple, TypeAlias, TypeVar
from uuid import UUID

import psycopg
from psycopg import AsyncConnection

from taskflow_core.actors import Actor
from taskflow_core.batches import OVERLOADED, RUNNERS, Batches, Call
from taskflow_core.database import is_timeout
from taskflow_core.errors import NotFound, Unavailable
from taskflow_core.inserts import TaskRow
from taskflow_core.links import Link
from taskflow_core.settings import Settings

LINKS = 4  # for what may take long: no more than a few at once, or they slow each other down
COLUMNS = ", ".join(f"t.{field.name}" for field in fields(TaskRow) if field.name != "asked_at")
READ = f"""
SELECT n.place, {COLUMNS} FROM unnest(%s::uuid[], %s::uuid[]) WITH ORDINALITY AS n(id, owner_id, place)
JOIN tasks t ON t.id = n.id AND (n.owner_id IS NULL OR t.owner_id = n.owner_id)
"""  # noqa: S608 - names of our own

T = TypeVar("T")


class _Wanted(NamedTuple):
    task_id: UUID
    owner_id: UUID | None


_Call: TypeAlias = Call[_Wanted, TaskRow]


class Reading:
    """Reads tasks. One for a process."""

    def __init__(self, settings: Settings) -> None:
        links = [Link(settings, service="api-reading") for _ in range(RUNNERS)]
        self._batches: Batches[_Wanted, TaskRow] = Batches(self._run, links, timeout_s=settings.database_timeout_s)
        self._timeout_s = settings.database_timeout_s
        self._idle = [Link(settings, service="api-lists", planner="") for _ in range(LINKS)]
        self._free = asyncio.Semaphore(LINKS)

    async def get(self, task_id: UUID, *, actor: Actor) -> TaskRow:
        """Return one task.

        Raises:
            NotFound: no such task, or another owner's.
            Unavailable: the database is away or overloaded.
        """
        return await self._batches.ask(_Wanted(task_id, None if actor.sees_all else actor.user_id))

    async def ask(self, read: Callable[[AsyncConnection[Any]], Awaitable[T]]) -> T:
        """Return what `read` finds on a connection that nobody else uses meanwhile; each statement sees the latest.

        Raises:
            Unavailable: all connections were in use for too long.
            TimeoutError: the database did not answer.
            psycopg.Error: as `read` does.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._free.acquire()
        except TimeoutError:
            raise Unavailable(OVERLOADED) from None
        link = self._idle.pop()
        try:
            async with asyncio.timeout(2 * self._timeout_s):  # PostgreSQL itself ends a statement in half of it
                return await _anew(link, read)
        except BaseException:
            await link.drop()
            raise
        finally:
            self._idle.append(link)
            self._free.release()

    async def close(self) -> None:
        """Answer what waits."""
        await self._batches.close()
        for link in self._idle:
            await link.drop()

    async def _run(self, link: Link, batch: Sequence[_Call]) -> None:
        parameters = [
            [call.question.task_id for call in batch],
            [call.question.owner_id for call in batch],
        ]

        async def rows(connection: AsyncConnection[Any]) -> list[Any]:
            return await (await connection.execute(READ, parameters)).fetchall()

        for place, *values in await _anew(link, rows):
            batch[place - 1].succeed(TaskRow(*values))
        for call in batch:
            call.fail(NotFound(f"there is no task {call.question.task_id}"))


async def _anew(link: Link, read: Callable[[AsyncConnection[Any]], Awaitable[T]]) -> T:
    """Read, and once more over a new connection when this one has died: an idle one does so unseen."""
    try:
        return await read(await link.get())
    except psycopg.OperationalError as error:
        if is_timeout(error):
            raise
        await link.drop()
        return await read(await link.get())
