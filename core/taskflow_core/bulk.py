"""Use-cases for many tasks at once. None commits; the caller does, once, visibly."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from taskflow_core.actors import Actor
from taskflow_core.errors import Conflict, FieldProblem, Invalid
from taskflow_core.lanes import CROWD
from taskflow_core.listing import TaskFilter, chosen_by
from taskflow_core.tasks import AGAIN, DEDUP_INDEX

MAX_TASKS = 10_000


class Again(NamedTuple):
    """A task that was just made PENDING and wants a delivery."""

    id: UUID
    lane: str
    enqueued_at: datetime


class BulkRetry(NamedTuple):
    """What became of the chosen tasks; `skipped` ones share the dedup_key of an unfinished task or of a newer one."""

    retried: Sequence[Again]
    skipped: int


# A crowd goes to the low lane, like one that is created: another owner's few tasks pass it by (docs/adr/0004).
RETRY = text(f"""
WITH chosen AS (
  SELECT id, owner_id, type, dedup_key, attempt,
    row_number() OVER (PARTITION BY owner_id, type, dedup_key ORDER BY id DESC) AS place
  FROM tasks WHERE id = ANY(CAST(:ids AS uuid[]))
), free AS (
  SELECT c.id, c.attempt FROM chosen c WHERE c.dedup_key IS NULL OR (c.place = 1 AND NOT EXISTS (
    SELECT FROM tasks o WHERE o.owner_id = c.owner_id AND o.type = c.type AND o.dedup_key = c.dedup_key
      AND o.finished_at IS NULL))
), again AS (
  UPDATE tasks SET {AGAIN}, row_version = row_version + 1, updated_at = clock_timestamp(),
    lane = CASE WHEN :crowded AND priority = 0 THEN queue || '\\:low' ELSE lane END
  FROM free WHERE tasks.id = free.id
  RETURNING tasks.id, owner_id, lane, enqueued_at, free.attempt AS before
), event AS (
  INSERT INTO task_events (task_id, owner_id, kind, attempt)
  SELECT id, owner_id, 'task.retried_by_hand', before FROM again
)
SELECT id, lane, enqueued_at FROM again ORDER BY id
""")  # noqa: S608 - constants only


# A task that runs is asked to stop; one that was asked already keeps the time of that.
CANCEL = text("""
WITH chosen AS (
  SELECT id, status, cancel_requested_at IS NOT NULL AS asked FROM tasks WHERE id = ANY(CAST(:ids AS uuid[]))
), changed AS (
  UPDATE tasks SET status = CASE WHEN tasks.status = 'PENDING' THEN 'CANCELED' ELSE tasks.status END,
    finished_at = CASE WHEN tasks.status = 'PENDING' THEN clock_timestamp() END,
    cancel_requested_at = clock_timestamp(), row_version = row_version + 1, updated_at = clock_timestamp()
  FROM chosen WHERE tasks.id = chosen.id AND NOT chosen.asked
  RETURNING tasks.id, owner_id, tasks.status, attempt
), event AS (
  INSERT INTO task_events (task_id, owner_id, kind, attempt)
  SELECT id, owner_id, CASE WHEN status = 'CANCELED' THEN 'task.canceled' ELSE 'task.cancel_requested' END, attempt
  FROM changed
)
SELECT count(*) FILTER (WHERE status = 'PENDING'), count(*) FILTER (WHERE status = 'RUNNING') FROM chosen
""")


class BulkCancel(NamedTuple):
    """How many tasks are CANCELED, and how many run and were asked to stop."""

    canceled: int
    asked: int


async def cancel_unfinished(
    session: AsyncSession, filters: TaskFilter, *, actor: Actor, expected_count: int
) -> BulkCancel:
    """Cancel every unfinished task of the filter, if there are as many as expected: those that run are asked to stop.

    Raises:
        Conflict: there are more or fewer; nothing is changed.
        Invalid: there are more than MAX_TASKS.
    """
    unfinished = "t.finished_at IS NULL"
    ids = await _lock(session, filters, unfinished, actor=actor, expected_count=expected_count, what="unfinished")
    return BulkCancel(*(await session.execute(CANCEL, {"ids": ids})).one())


async def retry_failed(session: AsyncSession, filters: TaskFilter, *, actor: Actor, expected_count: int) -> BulkRetry:
    """Give every FAILED task of the filter a fresh set of attempts, if there are as many as expected.

    After the commit the caller hands them to `queue.deliver`.

    Raises:
        Conflict: there are more or fewer, or one changed at this moment; nothing is changed.
        Invalid: there are more than MAX_TASKS.
    """
    failed = "t.unsuccessful = 'FAILED'"
    ids = await _lock(session, filters, failed, actor=actor, expected_count=expected_count, what="FAILED")
    try:
        rows = await session.execute(RETRY, {"ids": ids, "crowded": len(ids) > CROWD})
    except IntegrityError as error:
        if DEDUP_INDEX not in str(error.orig):
            raise
        raise Conflict("a task with the dedup_key of one of these was created at this moment; try again") from None
    retried = [Again(*row) for row in rows]
    return BulkRetry(retried, len(ids) - len(retried))


async def _lock(
    session: AsyncSession,
    filters: TaskFilter,
    state: str,
    *,
    actor: Actor,
    expected_count: int,
    what: str,
) -> list[UUID]:
    """Return the ids of the filter's tasks in that state, locked in the order of their ids as workers do."""
    chosen = chosen_by(filters, actor)
    chosen.served.append(state)
    statement = f"SELECT t.id FROM tasks t{chosen.where} ORDER BY t.id LIMIT {MAX_TASKS + 1} FOR UPDATE"  # noqa: S608 - our own words
    connection = await session.connection()
    ids = list((await connection.exec_driver_sql(statement, chosen.parameters)).scalars())
    if len(ids) > MAX_TASKS:
        message = f"chooses more than {MAX_TASKS} tasks; narrow it, for example with created_to"
        raise Invalid("the filter is too wide", [FieldProblem("filter", message)])
    if len(ids) != expected_count:
        raise Conflict(f"{len(ids)} {what} tasks match the filter, not {expected_count}; look again")
    return ids
