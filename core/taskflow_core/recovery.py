"""What the scheduler repairs: due tasks, expired leases, lost deliveries. Any number of schedulers may run it."""

from datetime import datetime, timedelta
from typing import Any, LiteralString, NamedTuple
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row

from taskflow_core.lifecycle import BACKOFF_BASE_S, BACKOFF_CAP_S

BATCH = 1000
GRACE = timedelta(seconds=5)  # between the commit of a row and its push; a duplicate push is harmless


class EnqueuedTask(NamedTuple):
    """A task that was just marked as enqueued and wants a delivery."""

    id: UUID
    lane: str
    enqueued_at: datetime


class Expired(NamedTuple):
    """A task whose lease ended without a word, and where it went."""

    id: UUID
    worker_id: str
    status: str


# statement_timestamp() and not clock_timestamp() where an index shall end the search: what changes within a statement
# is compared row by row, and a sweep would read everything that waits.
DUE: LiteralString = """
UPDATE tasks SET enqueued_at = clock_timestamp() WHERE id IN (
  SELECT id FROM tasks WHERE finished_at IS NULL AND enqueued_at IS NULL AND run_at <= statement_timestamp()
    AND status = 'PENDING' ORDER BY run_at LIMIT %(batch)s FOR UPDATE SKIP LOCKED
) RETURNING id, lane, enqueued_at
"""

NEXT_DUE: LiteralString = """
SELECT EXTRACT(EPOCH FROM min(run_at) - clock_timestamp())::float8
FROM tasks WHERE finished_at IS NULL AND enqueued_at IS NULL
"""

# A loose index scan: one step for each lane, however many tasks wait.
LANES: LiteralString = """
WITH RECURSIVE q(name) AS (
  (SELECT lane FROM tasks WHERE finished_at IS NULL AND enqueued_at IS NOT NULL ORDER BY lane LIMIT 1)
  UNION ALL
  SELECT (SELECT lane FROM tasks WHERE finished_at IS NULL AND enqueued_at IS NOT NULL AND lane > q.name
    ORDER BY lane LIMIT 1) FROM q WHERE q.name IS NOT NULL
) SELECT name FROM q WHERE name IS NOT NULL
"""

# LEAST passes over NULL, the watermark of an empty list.
LOST: LiteralString = """
UPDATE tasks SET enqueued_at = clock_timestamp() WHERE id IN (
  SELECT id FROM tasks WHERE lane = %(lane)s AND finished_at IS NULL AND enqueued_at IS NOT NULL
    AND enqueued_at < LEAST(%(watermark)s::timestamptz, statement_timestamp() - %(grace)s::interval)
    AND status = 'PENDING' ORDER BY enqueued_at LIMIT %(batch)s FOR UPDATE SKIP LOCKED
) RETURNING id, lane, enqueued_at
"""

# Leases are looked for among what workers said they hold; the rare rest (a worker's row that was deleted by hand) is
# found among all unfinished tasks, less often.
HELD: LiteralString = """
  SELECT t.id FROM workers w CROSS JOIN LATERAL unnest(w.held) AS h(id) JOIN tasks t ON t.id = h.id
  WHERE t.status = 'RUNNING' AND t.lease_expires_at < clock_timestamp()
  LIMIT %(batch)s FOR UPDATE OF t SKIP LOCKED
"""
ANY_OPEN: LiteralString = """
  SELECT t.id FROM tasks t WHERE t.finished_at IS NULL AND t.enqueued_at IS NOT NULL AND t.status = 'RUNNING'
    AND t.lease_expires_at < clock_timestamp() LIMIT %(batch)s FOR UPDATE OF t SKIP LOCKED
"""
EXPIRE: LiteralString = """
WITH lost AS ({candidates}), before AS (
  SELECT t.id, t.fence, t.attempt, t.worker_id, t.claimed_at,
    CASE WHEN t.cancel_requested_at IS NOT NULL THEN 'CANCELED' WHEN t.attempt >= t.max_attempts THEN 'FAILED'
      ELSE 'PENDING' END AS target,
    jsonb_build_object('code', 'lease_lost', 'message', 'the worker ' || t.worker_id || ' stopped renewing its lease')
      AS error
  FROM tasks t JOIN lost ON lost.id = t.id
), ended AS (
  UPDATE tasks t SET status = b.target, fence = t.fence + 1, worker_id = NULL, lease_expires_at = NULL,
    error = b.error, enqueued_at = CASE WHEN b.target = 'PENDING' THEN NULL ELSE t.enqueued_at END,
    run_at = CASE WHEN b.target = 'PENDING' THEN clock_timestamp() + make_interval(secs =>
      LEAST(%(cap_s)s, %(base_s)s * 2 ^ LEAST(t.attempt - 1, 32)) * (0.5 + 0.5 * random())) ELSE t.run_at END,
    finished_at = CASE WHEN b.target <> 'PENDING' THEN clock_timestamp() END,
    row_version = t.row_version + 1, updated_at = clock_timestamp()
  FROM before b WHERE t.id = b.id
  RETURNING t.id, t.owner_id, b.fence, b.attempt, b.worker_id, b.claimed_at, b.target, b.error
), attempt AS (
  INSERT INTO task_attempts (task_id, fence, attempt, worker_id, outcome, error, started_at, finished_at)
  SELECT id, fence, attempt, worker_id, 'lost', error, claimed_at, clock_timestamp() FROM ended
), event AS (
  INSERT INTO task_events (task_id, owner_id, kind, attempt, data)
  SELECT id, owner_id, CASE WHEN target = 'PENDING' THEN 'task.lost' ELSE 'task.' || lower(target) END, attempt, error
  FROM ended
)
SELECT id, worker_id, target AS status FROM ended
"""
EXPIRE_HELD: LiteralString = EXPIRE.replace("{candidates}", HELD)
EXPIRE_ANY: LiteralString = EXPIRE.replace("{candidates}", ANY_OPEN)

FORGET_WORKERS: LiteralString = """
DELETE FROM workers w WHERE heartbeat_at < clock_timestamp() - %(after)s::interval AND NOT EXISTS (
  SELECT 1 FROM unnest(w.held) AS h(id) JOIN tasks t ON t.id = h.id
  WHERE t.status = 'RUNNING' AND t.worker_id = w.id)
"""


async def mark_due(connection: AsyncConnection[Any]) -> list[EnqueuedTask]:
    """Mark up to 1,000 due tasks as enqueued and return them for delivery."""
    return await _enqueued(connection, DUE, {"batch": BATCH})


async def next_due_s(connection: AsyncConnection[Any]) -> float | None:
    """Return in how many seconds the next task becomes due, or None when none waits for its time."""
    row = await (await connection.execute(NEXT_DUE)).fetchone()
    return None if row is None else row[0]


async def lanes(connection: AsyncConnection[Any]) -> list[str]:
    """Return the lanes that hold unfinished tasks."""
    return [row[0] for row in await (await connection.execute(LANES)).fetchall()]


async def mark_lost(
    connection: AsyncConnection[Any], lane: str, *, head: datetime | None, grace: timedelta = GRACE
) -> list[EnqueuedTask]:
    """Mark up to 1,000 waiting tasks of a lane whose delivery is gone and return them for a new one.

    Lists are first in, first out: what was enqueued before the list's head (None: the list is empty) and still waits
    is no longer in it.
    """
    parameters = {"lane": lane, "watermark": head, "grace": grace, "batch": BATCH}
    return await _enqueued(connection, LOST, parameters)


async def expire(connection: AsyncConnection[Any], *, everywhere: bool = False) -> list[Expired]:
    """End attempts whose lease has passed: PENDING again after a backoff, FAILED after the last attempt."""
    statement = EXPIRE_ANY if everywhere else EXPIRE_HELD
    parameters = {"batch": BATCH, "base_s": BACKOFF_BASE_S, "cap_s": BACKOFF_CAP_S}
    async with connection.cursor(row_factory=class_row(Expired)) as cursor:
        await cursor.execute(statement, parameters)
        return await cursor.fetchall()


async def forget_workers(connection: AsyncConnection[Any], *, after: timedelta) -> int:
    """Delete the rows of workers that have been silent for so long and hold nothing."""
    return (await connection.execute(FORGET_WORKERS, {"after": after})).rowcount


async def _enqueued(
    connection: AsyncConnection[Any], statement: LiteralString, parameters: dict[str, Any]
) -> list[EnqueuedTask]:
    async with connection.cursor(row_factory=class_row(EnqueuedTask)) as cursor:
        await cursor.execute(statement, parameters)
        return await cursor.fetchall()


async def epoch(connection: AsyncConnection[Any]) -> str:
    """Return the mark that Redis must hold, made once for this database: where it is missing, Redis lost its data."""
    await connection.execute(
        "INSERT INTO platform_state (key, value) VALUES ('redis_epoch', gen_random_uuid()::text) ON CONFLICT DO NOTHING"
    )
    row = await (await connection.execute("SELECT value FROM platform_state WHERE key = 'redis_epoch'")).fetchone()
    return str(row[0]) if row else ""
