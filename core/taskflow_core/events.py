"""What happened to tasks and what their handlers logged, read back. Ids are assigned before a commit: see tail.py."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString, NamedTuple
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row, tuple_row

from taskflow_core.lifecycle import TaskStatus

LEVELS = ("debug", "info", "warning", "error", "critical")
ANY_ID = 2**63 - 1

# What a task is after an event of that kind; other kinds change no status.
STATUS_AFTER: Mapping[str, TaskStatus] = {
    **dict.fromkeys(
        ("created", "retried", "retried_by_hand", "timed_out", "released", "snoozed", "lost"), TaskStatus.PENDING
    ),
    "started": TaskStatus.RUNNING,
    "cancel_requested": TaskStatus.RUNNING,
    "completed": TaskStatus.COMPLETED,
    "failed": TaskStatus.FAILED,
    "canceled": TaskStatus.CANCELED,
}


@dataclass(frozen=True, slots=True)
class Event:
    """A change of a task. `data` is JSON text; type and queue are None once the task has been deleted."""

    id: int
    task_id: UUID
    owner_id: UUID
    type: str | None
    queue: str | None
    kind: str
    attempt: int
    data: str | None
    at: datetime

    @property
    def status(self) -> TaskStatus | None:
        """What the task became."""
        return STATUS_AFTER.get(self.kind.removeprefix("task."))


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events somebody wants; None means any."""

    owner_id: UUID | None = None
    kind: str | None = None
    type: str | None = None
    queue: str | None = None

    def accepts(self, event: Event) -> bool:
        """Whether it wants the event."""
        return (
            self.owner_id in (None, event.owner_id)
            and self.kind in (None, event.kind)
            and self.type in (None, event.type)
            and self.queue in (None, event.queue)
        )


@dataclass(frozen=True, slots=True)
class Line:
    """A line that a handler logged. `fields` is JSON text."""

    id: int
    attempt: int
    level: str
    message: str
    fields: str | None
    at: datetime


class Change(NamedTuple):
    """What is new of a task that somebody follows; `version` is None when the task has been deleted."""

    task_id: UUID
    version: int | None
    finished: bool | None
    progress: str | None
    last_line: int


COLUMNS: LiteralString = """
SELECT e.id, e.task_id, e.owner_id, t.type, t.queue, e.kind, e.attempt, e.data::text AS data, e.created_at AS at
FROM task_events e LEFT JOIN tasks t ON t.id = e.task_id
"""
OF_TASK: LiteralString = f"""
{COLUMNS} WHERE e.task_id = %(task)s AND e.id > %(after)s AND (%(kind)s::text IS NULL OR e.kind = %(kind)s)
ORDER BY e.id LIMIT %(limit)s
"""
BETWEEN: LiteralString = f"""
{COLUMNS} WHERE e.id > %(after)s AND e.id <= %(upto)s
  AND (%(owner)s::uuid IS NULL OR e.owner_id = %(owner)s) AND (%(kind)s::text IS NULL OR e.kind = %(kind)s)
  AND (%(type)s::text IS NULL OR t.type = %(type)s) AND (%(queue)s::text IS NULL OR t.queue = %(queue)s)
"""
OLDEST: LiteralString = f"{BETWEEN} ORDER BY e.id LIMIT %(limit)s"
NEWEST: LiteralString = f"{BETWEEN} ORDER BY e.id DESC LIMIT %(limit)s"
LINES: LiteralString = """
SELECT id, attempt, level, message, fields::text AS fields, created_at AS at FROM task_logs
WHERE task_id = %(task)s AND id > %(after)s AND level = ANY(%(levels)s::text[])
  AND (%(attempt)s::int IS NULL OR attempt = %(attempt)s)
ORDER BY id LIMIT %(limit)s
"""
CHANGES: LiteralString = """
SELECT d.id, t.row_version, t.finished_at IS NOT NULL, t.progress::text, COALESCE(l.id, 0)
FROM unnest(%(ids)s::uuid[], %(versions)s::int[], %(lines)s::bigint[]) AS d(id, version, line)
LEFT JOIN tasks t ON t.id = d.id
LEFT JOIN LATERAL (SELECT id FROM task_logs WHERE task_id = d.id ORDER BY id DESC LIMIT 1) l ON true
WHERE t.row_version IS DISTINCT FROM d.version OR l.id > d.line
"""


async def of_task(
    connection: AsyncConnection[Any], task_id: UUID, *, after: int, limit: int, kind: str | None = None
) -> list[Event]:
    """Return the events of one task after an id. A task's row is locked while it changes: they commit in order."""
    parameters = {"task": task_id, "after": after, "kind": kind, "limit": limit}
    async with connection.cursor(row_factory=class_row(Event)) as cursor:
        await cursor.execute(OF_TASK, parameters)
        return await cursor.fetchall()


async def between(
    connection: AsyncConnection[Any],
    after: int,
    upto: int,
    *,
    limit: int,
    filters: EventFilter | None = None,
    newest_first: bool = False,
) -> list[Event]:
    """Return the events with after < id <= upto; the BRIN index finds them by where they lie in the table."""
    chosen = filters or EventFilter()
    parameters = {
        "after": after,
        "upto": upto,
        "owner": chosen.owner_id,
        "kind": chosen.kind,
        "type": chosen.type,
        "queue": chosen.queue,
        "limit": limit,
    }
    async with connection.cursor(row_factory=class_row(Event)) as cursor:
        await cursor.execute(NEWEST if newest_first else OLDEST, parameters)
        return await cursor.fetchall()


async def lines(
    connection: AsyncConnection[Any],
    task_id: UUID,
    *,
    after: int,
    limit: int,
    level: str = LEVELS[0],
    attempt: int | None = None,
) -> list[Line]:
    """Return the lines of one task after an id, of that level and above."""
    parameters = {
        "task": task_id,
        "after": after,
        "levels": list(LEVELS[LEVELS.index(level) :]),
        "attempt": attempt,
        "limit": limit,
    }
    async with connection.cursor(row_factory=class_row(Line)) as cursor:
        await cursor.execute(LINES, parameters)
        return await cursor.fetchall()


async def changes(connection: AsyncConnection[Any], known: Sequence[tuple[UUID, int | None, int]]) -> list[Change]:
    """Return those tasks of (id, version, last line) that are not so any more."""
    ids, versions, last_lines = zip(*known, strict=True)
    async with connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(CHANGES, {"ids": list(ids), "versions": list(versions), "lines": list(last_lines)})
        return [Change(*row) for row in await cursor.fetchall()]
