"""The right to run an attempt: claim, renew, report, finish and expire, each one fenced statement for many tasks.

Every statement compares id, fence, worker_id and status. The attempt's row, the event and the log lines are written
by the statement that changes the task, so they cannot disagree. Only the database's clock counts. A row that does not
come back means the lease is lost: the caller drops what it has.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString, NamedTuple
from uuid import UUID

from orjson import Fragment
from psycopg import AsyncConnection, Connection
from psycopg.rows import class_row, tuple_row

from taskflow_core.database import dumps
from taskflow_core.lifecycle import Ending

# A worker may hold two attempts of one task: the lease of the first is lost, and its handler still runs.
AttemptKey = tuple[UUID, int]


@dataclass(frozen=True, slots=True)
class Claimed:
    """A task that this worker may run until its lease ends. `payload` is JSON text."""

    id: UUID
    owner_id: UUID
    type: str
    queue: str
    payload: str
    attempt: int
    max_attempts: int
    fence: int
    timeout_s: int
    enqueued_at: datetime
    claimed_at: datetime
    traceparent: str | None

    @property
    def key(self) -> AttemptKey:
        """Which attempt it is: the task's id and the fence."""
        return self.id, self.fence


class LogLine(NamedTuple):
    """A line that a handler logged: its number within the attempt, and when, by time.monotonic()."""

    number: int
    logged: float
    level: str
    message: str
    fields: dict[str, Any]


class Finished(NamedTuple):
    """How one attempt ended, ready to be written."""

    task: Claimed
    ending: Ending
    logs: Sequence[LogLine] = ()


class Held(NamedTuple):
    """What the database says of a task that a worker holds."""

    id: UUID
    fence: int
    cancel_requested: bool

    @property
    def key(self) -> AttemptKey:
        """Which attempt it is."""
        return self.id, self.fence


CLAIM: LiteralString = """
WITH holder AS (
  UPDATE workers SET held = string_to_array(%(held)s, ',')::uuid[], heartbeat_at = clock_timestamp()
  WHERE id = %(worker)s RETURNING id, queues
), claimed AS (
  UPDATE tasks t SET status = 'RUNNING', attempt = t.attempt + 1, fence = t.fence + 1, worker_id = holder.id,
    lease_expires_at = clock_timestamp() + make_interval(secs => %(lease_s)s),
    claimed_at = clock_timestamp(), started_at = COALESCE(t.started_at, clock_timestamp()),
    enqueued_at = COALESCE(t.enqueued_at, clock_timestamp()),
    progress = NULL, row_version = t.row_version + 1, updated_at = clock_timestamp()
  FROM unnest(string_to_array(%(ids)s, ',')::uuid[]) AS d(id), holder
  WHERE t.id = d.id AND t.status = 'PENDING' AND t.run_at <= clock_timestamp()
    AND t.cancel_requested_at IS NULL AND t.attempt < t.max_attempts
    AND t.queue = ANY (holder.queues) AND t.type <> ALL (string_to_array(%(but)s, ','))
  RETURNING t.id, t.owner_id, t.type, t.queue, t.payload::text AS payload, t.attempt, t.max_attempts, t.fence,
    t.timeout_s, t.enqueued_at, t.claimed_at, t.traceparent
), event AS (
  INSERT INTO task_events (task_id, owner_id, kind, attempt)
  SELECT id, owner_id, 'task.started', attempt FROM claimed
)
SELECT * FROM claimed
"""

ADOPT: LiteralString = """
SELECT id, owner_id, type, queue, payload::text AS payload, attempt, max_attempts, fence, timeout_s, enqueued_at,
  claimed_at, traceparent
FROM tasks WHERE id = ANY(%(ids)s::uuid[]) AND worker_id = %(worker)s AND status = 'RUNNING'
"""

# Without Redis: the oldest due tasks of each lane, in the order of the lanes.
DUE: LiteralString = """
SELECT t.id FROM unnest(%(lanes)s::text[]) WITH ORDINALITY AS q(name, place)
CROSS JOIN LATERAL (
  SELECT id FROM tasks WHERE lane = q.name AND finished_at IS NULL AND enqueued_at IS NOT NULL
    AND status = 'PENDING' AND run_at <= clock_timestamp() AND cancel_requested_at IS NULL
    ORDER BY enqueued_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
) t ORDER BY q.place LIMIT %(limit)s
"""

RENEW: LiteralString = """
UPDATE tasks t SET lease_expires_at = clock_timestamp() + make_interval(secs => %(lease_s)s)
FROM unnest(%(ids)s::uuid[], %(fences)s::bigint[]) AS d(id, fence)
WHERE t.id = d.id AND t.fence = d.fence AND t.worker_id = %(worker)s AND t.status = 'RUNNING'
RETURNING t.id, t.fence, t.cancel_requested_at IS NOT NULL
"""

REPORT: LiteralString = """
WITH d AS (
  SELECT * FROM unnest(%(ids)s::uuid[], %(fences)s::bigint[], %(progress)s::text[]) AS d(id, fence, progress)
), changed AS (
  UPDATE tasks t SET progress = d.progress::jsonb, row_version = t.row_version + 1, updated_at = clock_timestamp()
  FROM d WHERE d.progress IS NOT NULL
    AND t.id = d.id AND t.fence = d.fence AND t.worker_id = %(worker)s AND t.status = 'RUNNING'
)
SELECT t.id, t.fence, t.cancel_requested_at IS NOT NULL FROM tasks t JOIN d ON t.id = d.id AND t.fence = d.fence
WHERE t.worker_id = %(worker)s AND t.status = 'RUNNING'
"""

# A task that was asked to stop does not go back to PENDING: it is CANCELED.
FINISH: LiteralString = """
WITH d AS (
  SELECT * FROM jsonb_to_recordset(%(rows)s::jsonb) AS d(id uuid, fence bigint, attempt int, claimed_at timestamptz,
    outcome text, status text, result jsonb, error jsonb, run_at timestamptz, delay_s float8, refund int)
), ended AS (
  UPDATE tasks t SET
    status = CASE WHEN d.status = 'PENDING' AND t.cancel_requested_at IS NOT NULL THEN 'CANCELED' ELSE d.status END,
    finished_at = CASE WHEN d.status <> 'PENDING' OR t.cancel_requested_at IS NOT NULL THEN clock_timestamp() END,
    enqueued_at = CASE WHEN d.status <> 'PENDING' OR t.cancel_requested_at IS NOT NULL THEN t.enqueued_at END,
    worker_id = CASE WHEN d.status <> 'PENDING' THEN t.worker_id END,
    run_at = CASE WHEN d.status <> 'PENDING' THEN t.run_at
      ELSE COALESCE(d.run_at, clock_timestamp() + make_interval(secs => d.delay_s)) END,
    result = d.result, error = d.error, attempt = t.attempt - d.refund, lease_expires_at = NULL,
    row_version = t.row_version + 1, updated_at = clock_timestamp()
  FROM d WHERE t.id = d.id AND t.fence = d.fence AND t.worker_id = %(worker)s AND t.status = 'RUNNING'
  RETURNING t.id, t.owner_id, t.status, d.fence, d.attempt, d.claimed_at, d.outcome, d.error
), attempt AS (
  INSERT INTO task_attempts (task_id, fence, attempt, worker_id, outcome, error, started_at, finished_at)
  SELECT id, fence, attempt, %(worker)s, outcome, error, claimed_at, clock_timestamp() FROM ended
), event AS (
  INSERT INTO task_events (task_id, owner_id, kind, attempt, data)
  SELECT id, owner_id, 'task.' || CASE WHEN status = 'PENDING' THEN outcome ELSE lower(status) END, attempt, error
  FROM ended
)
SELECT id FROM ended
"""

# Numbered, so that a line whose first writing was not confirmed may be written again.
LOGS: LiteralString = """
INSERT INTO task_logs (task_id, fence, line, attempt, level, message, fields, created_at)
SELECT l.task_id, l.fence, l.line, l.attempt, l.level, l.message, l.fields::jsonb,
  clock_timestamp() - make_interval(secs => l.age_s)
FROM unnest(%(ids)s::uuid[], %(fences)s::bigint[], %(lines)s::int[], %(attempts)s::int[], %(levels)s::text[],
    %(messages)s::text[], %(fields)s::text[], %(ages)s::float8[])
  AS l(task_id, fence, line, attempt, level, message, fields, age_s)
ON CONFLICT (task_id, fence, line) WHERE line IS NOT NULL DO NOTHING
"""
# The lock keeps the lease where it is until the lines are there.
HOLD: LiteralString = """
SELECT id, fence FROM tasks WHERE id = ANY(%(ids)s::uuid[]) AND worker_id = %(worker)s AND status = 'RUNNING'
ORDER BY id FOR NO KEY UPDATE
"""


async def claim(
    connection: AsyncConnection[Any],
    ids: Sequence[UUID],
    *,
    worker: str,
    held: Sequence[UUID],
    lease_s: float,
    but: Iterable[str] = (),
) -> list[Claimed]:
    """Take every task of `ids` that may start now. A duplicate, early or canceled delivery gives no row.

    Nor does one that was popped before its task was moved to a queue that this worker does not serve. Tasks of the
    types in `but` are left alone. `held` is everything the worker still runs; together with `ids` it is
    kept in the worker's row, where the scheduler looks for expired leases.
    """
    wanted = sorted(ids)  # every statement here locks rows in the order of their ids: no deadlocks
    async with connection.cursor(row_factory=class_row(Claimed)) as cursor:
        parameters = {
            "ids": _joined(wanted),
            "held": _joined([*held, *wanted]),
            "worker": worker,
            "lease_s": lease_s,
            "but": ",".join(but),
        }
        await cursor.execute(CLAIM, parameters)
        return await cursor.fetchall()


async def adopt(connection: AsyncConnection[Any], ids: Sequence[UUID], *, worker: str) -> list[Claimed]:
    """Return those of `ids` that this worker holds already: a claim whose answer was lost with its connection."""
    async with connection.cursor(row_factory=class_row(Claimed)) as cursor:
        await cursor.execute(ADOPT, {"ids": list(ids), "worker": worker})
        return await cursor.fetchall()


async def due(connection: AsyncConnection[Any], lanes: Sequence[str], *, limit: int) -> list[UUID]:
    """Return tasks that could be claimed now, straight from the table; used while Redis is away."""
    async with connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(DUE, {"lanes": list(lanes), "limit": limit})
        return [row[0] for row in await cursor.fetchall()]


async def paused(connection: AsyncConnection[Any]) -> frozenset[str]:
    """Return the queues that nothing may be taken from."""
    rows = await connection.execute("SELECT name FROM queues WHERE paused_at IS NOT NULL")
    return frozenset(row[0] for row in await rows.fetchall())


def renew(connection: Connection[Any], tasks: Iterable[Claimed], *, worker: str, lease_s: float) -> list[Held]:
    """Extend the leases; blocking, for the thread that keeps them."""
    rows = sorted(tasks, key=lambda task: task.id)
    with connection.cursor(row_factory=tuple_row) as cursor:
        cursor.execute(
            RENEW,
            {
                "ids": [task.id for task in rows],
                "fences": [task.fence for task in rows],
                "worker": worker,
                "lease_s": lease_s,
            },
        )
        return [Held(*row) for row in cursor.fetchall()]


async def report(
    connection: AsyncConnection[Any], progress: Sequence[tuple[Claimed, dict[str, Any] | None]], *, worker: str
) -> list[Held]:
    """Write the progress that changed (None: unchanged) and return what is still held, with wishes to cancel."""
    progress = sorted(progress, key=lambda item: item[0].id)
    async with connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(
            REPORT,
            {
                "ids": [task.id for task, _ in progress],
                "fences": [task.fence for task, _ in progress],
                "progress": [None if value is None else dumps(value) for _, value in progress],
                "worker": worker,
            },
        )
        return [Held(*row) for row in await cursor.fetchall()]


def finish_parameters(finished: Sequence[Finished], *, worker: str) -> dict[str, Any]:
    """Return the parameters of FINISH: the rows as one JSON document, much cheaper to write than an array a column."""
    rows = [
        {
            "id": task.id,
            "fence": task.fence,
            "attempt": task.attempt,
            "claimed_at": task.claimed_at,
            "outcome": ending.outcome,
            "status": ending.status,
            "result": None if ending.result_json is None else Fragment(ending.result_json),
            "error": ending.error,
            "run_at": ending.run_at,
            "delay_s": ending.delay_s,
            "refund": int(ending.refund),
        }
        for task, ending, _ in sorted(finished, key=lambda item: item.task.id)
    ]
    return {"worker": worker, "rows": dumps(rows)}


def _joined(ids: Iterable[UUID]) -> str:
    """Return ids as one text: an array's every element would be looked at for quotes."""
    return ",".join(map(str, ids))


def log_parameters(lines: Sequence[tuple[Claimed, LogLine]]) -> dict[str, Any]:
    """Return the parameters of LOGS."""
    now = time.monotonic()
    return {
        "ids": [task.id for task, _ in lines],
        "fences": [task.fence for task, _ in lines],
        "lines": [line.number for _, line in lines],
        "attempts": [task.attempt for task, _ in lines],
        "levels": [line.level for _, line in lines],
        "messages": [line.message for _, line in lines],
        "fields": [dumps(line.fields) for _, line in lines],
        "ages": [now - line.logged for _, line in lines],
    }


async def write_lines(
    connection: AsyncConnection[Any], lines: Sequence[tuple[Claimed, LogLine]], *, worker: str
) -> None:
    """Write lines of running attempts, each once however often it is written; those of a lost lease are dropped."""
    ids = list({task.id for task, _ in lines})
    async with connection.transaction(), connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(HOLD, {"ids": ids, "worker": worker})
        held = set(await cursor.fetchall())
        kept = [(task, line) for task, line in lines if task.key in held]
        if kept:
            await cursor.execute(LOGS, log_parameters(kept))


async def finish(connection: AsyncConnection[Any], finished: Sequence[Finished], *, worker: str) -> set[UUID]:
    """Write how attempts ended, with history, events and logs in one transaction; return the ids still held."""
    parameters = finish_parameters(finished, worker=worker)
    if not any(item.logs for item in finished):
        return {row[0] for row in await (await connection.execute(FINISH, parameters)).fetchall()}
    async with connection.transaction():
        ended = {row[0] for row in await (await connection.execute(FINISH, parameters)).fetchall()}
        lines = [(item.task, line) for item in finished if item.task.id in ended for line in item.logs]
        if lines:
            await connection.execute(LOGS, log_parameters(lines))
    return ended


def finish_blocking(connection: Connection[Any], finished: Sequence[Finished], *, worker: str) -> set[UUID]:
    """Write how attempts ended, without their logs, from a thread that has no loop."""
    return {row[0] for row in connection.execute(FINISH, finish_parameters(finished, worker=worker)).fetchall()}
