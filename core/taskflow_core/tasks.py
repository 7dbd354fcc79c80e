"""Use-cases of tasks: create, get, cancel, retry. None commits; the caller does, once, visibly."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from taskflow_core.actors import Actor
from taskflow_core.database import driver_of
from taskflow_core.errors import DuplicateTask, IllegalTransition, NotFound, TooMany
from taskflow_core.identifiers import new_id, time_of
from taskflow_core.inserts import HOLDERS, Asked, TaskRow, Written, duplicate, holders_of, parameter, statement
from taskflow_core.lanes import CROWD, lane_of
from taskflow_core.lifecycle import TaskStatus, advance
from taskflow_core.models.tasks import Task, TaskAttempt
from taskflow_core.quotas import OpenTasks, full
from taskflow_core.versions import Expected, check_version

DEDUP_INDEX = "tasks_dedup"


@dataclass(slots=True, kw_only=True)  # frozen, one would take three times as long to make
class NewTask:
    """A validated request for a task. `payload` is what the type's model dumped (JSON-compatible)."""

    type: str
    payload: dict[str, Any]
    title: str = ""
    queue: str = "default"
    priority: int = 0
    run_at: datetime | None = None
    max_attempts: int = 3
    timeout_s: int = 300
    dedup_key: str | None = None
    tags: Sequence[str] = ()
    traceparent: str | None = None
    schedule_id: UUID | None = None
    fire_at: datetime | None = None


Made: TypeAlias = TaskRow | DuplicateTask | TooMany

# What a fresh set of attempts means for the row of a FAILED task.
AGAIN = """status = 'PENDING', attempt = 0, fence = fence + 1, worker_id = NULL, result = NULL, error = NULL,
  progress = NULL, cancel_requested_at = NULL, finished_at = NULL, run_at = clock_timestamp(),
  enqueued_at = clock_timestamp()"""

CHANGE_EVENT = text("""
INSERT INTO task_events (task_id, owner_id, kind, attempt) VALUES (:task_id, :owner_id, :kind, :attempt)
""")


def draft(new: NewTask, *, owner_id: UUID) -> TaskRow:
    """Return the row of a new task; the insert puts the database's times into it, the quota its lane."""
    identifier = new_id()
    created_at = time_of(identifier)
    return TaskRow(
        id=identifier,
        owner_id=owner_id,
        type=new.type,
        title=new.title,
        queue=new.queue,
        lane=lane_of(new.queue, new.priority),
        priority=new.priority,
        payload=new.payload,
        tags=list(new.tags),
        max_attempts=new.max_attempts,
        timeout_s=new.timeout_s,
        run_at=new.run_at or created_at,
        created_at=created_at,
        updated_at=created_at,
        dedup_key=new.dedup_key,
        traceparent=new.traceparent,
        schedule_id=new.schedule_id,
        fire_at=new.fire_at,
        asked_at=new.run_at,
    )


async def create(session: AsyncSession, new: NewTask, *, actor: Actor, max_pending: int) -> TaskRow:
    """Insert a task as PENDING. After the commit the caller hands it to `queue.deliver`.

    Raises:
        DuplicateTask: an unfinished task of this owner and type holds the same dedup_key.
        TooMany: the owner has `max_pending` unfinished tasks.
    """
    (made,) = await create_many(session, [new], actor=actor, open_tasks=OpenTasks(limit=max_pending))
    if isinstance(made, DuplicateTask | TooMany):
        raise made
    return made


async def create_many(
    session: AsyncSession, news: Sequence[NewTask], *, actor: Actor, open_tasks: OpenTasks
) -> list[Made]:
    """Insert tasks as PENDING by one statement; return for each its row, or why it was not made.

    After the commit the caller hands the rows to `queue.deliver`.
    """
    await open_tasks.look(await driver_of(session), [actor.user_id] * len(news))
    rows: list[TaskRow] = []
    for new in news:
        if (unfinished := open_tasks.take(actor.user_id)) is None:
            break
        rows.append(row := draft(new, owner_id=actor.user_id))
        row.lane = lane_of(row.queue, row.priority, crowded=unfinished >= CROWD)
    made: list[Made] = []
    try:
        made = await _insert(session, rows) if rows else []
    finally:
        for _ in range(len(rows) - sum(isinstance(one, TaskRow) for one in made)):
            open_tasks.give_back(actor.user_id)
    return [*made, *(full(open_tasks.limit) for _ in news[len(rows) :])]


async def _insert(session: AsyncSession, rows: Sequence[TaskRow]) -> list[Made]:
    connection = await session.connection()
    asked = [Asked(row) for row in rows]
    found = await connection.exec_driver_sql(statement(asked), (parameter(asked),))
    written = {columns[0]: Written(*columns) for columns in map(tuple, found)}
    left_out = [row for row in rows if not written[row.id].created(row)]
    holders: dict[UUID, UUID] = {}
    if left_out:
        found = await connection.exec_driver_sql(HOLDERS, tuple(holders_of(left_out)))
        holders = {row.id: row.holder for row in found}
    refused = {row.id: duplicate(row.dedup_key, holders.get(row.id)) for row in left_out}
    return [refused.get(row.id, row) for row in rows]


async def get(session: AsyncSession, task_id: UUID, *, actor: Actor, lock: bool = False) -> Task:
    """Return one task; with `lock`, nobody else changes it until the transaction ends.

    Raises:
        NotFound: no such task, or another owner's.
    """
    statement = select(Task).where(col(Task.id) == task_id)
    if not actor.sees_all:
        statement = statement.where(col(Task.owner_id) == actor.user_id)
    if lock:
        statement = statement.with_for_update()
    task = (await session.execute(statement)).scalar_one_or_none()
    if task is None:
        raise NotFound(f"there is no task {task_id}")
    return task


async def attempts(session: AsyncSession, task_id: UUID, *, actor: Actor) -> list[TaskAttempt]:
    """Return the attempts of a task that have ended, oldest first.

    Raises:
        NotFound: no such task, or another owner's.
    """
    await get(session, task_id, actor=actor)
    rows = select(TaskAttempt).where(col(TaskAttempt.task_id) == task_id).order_by(col(TaskAttempt.fence))
    return list((await session.execute(rows)).scalars())


async def lock(session: AsyncSession, task_id: UUID, *, actor: Actor, expected: Expected = None) -> Task:
    """Return one task that nobody else changes until the transaction ends.

    Raises:
        NotFound: no such task, or another owner's.
        StaleVersion: its version is none of those `expected`.
    """
    task = await get(session, task_id, actor=actor, lock=True)
    check_version(str(task.row_version), expected)
    return task


async def cancel(session: AsyncSession, task_id: UUID, *, actor: Actor, expected: Expected = None) -> Task:
    """Cancel a task that has not finished: PENDING becomes CANCELED, RUNNING is asked to stop.

    Raises:
        NotFound: no such task, or another owner's.
        StaleVersion: its version is none of those `expected`.
        IllegalTransition: the task has finished.
    """
    task = await lock(session, task_id, actor=actor, expected=expected)
    advance(TaskStatus(task.status), TaskStatus.CANCELED)
    if task.status == TaskStatus.RUNNING:
        await _change(session, task, "task.cancel_requested", "cancel_requested_at = clock_timestamp()")
    else:
        await _change(
            session,
            task,
            "task.canceled",
            "status = 'CANCELED', cancel_requested_at = clock_timestamp(), finished_at = clock_timestamp()",
        )
    return task


async def retry(session: AsyncSession, task_id: UUID, *, actor: Actor, expected: Expected = None) -> Task:
    """Give a FAILED task a fresh set of attempts. After the commit the caller hands it to `queue.deliver`.

    Raises:
        NotFound: no such task, or another owner's.
        StaleVersion: its version is none of those `expected`.
        IllegalTransition: the task is not FAILED.
        DuplicateTask: another unfinished task took its dedup_key meanwhile.
    """
    task = await lock(session, task_id, actor=actor, expected=expected)
    if task.status != TaskStatus.FAILED:
        raise IllegalTransition(f"only a FAILED task can be retried; this one is {task.status}")
    owner_id, type_, dedup_key = task.owner_id, task.type, task.dedup_key
    try:
        await _change(session, task, "task.retried_by_hand", AGAIN)
    except IntegrityError as error:
        if DEDUP_INDEX not in str(error.orig):
            raise
        await session.rollback()
        raise await _duplicate(session, owner_id, type_, dedup_key) from None
    return task


async def _change(session: AsyncSession, task: Task, kind: str, assignments: str) -> None:
    """Update a locked task, write the event, and read the row again."""
    statement = f"UPDATE tasks SET {assignments}, row_version = row_version + 1, updated_at = now() WHERE id = :id"  # noqa: S608 - constants only
    await session.execute(text(statement), {"id": task.id})
    event = {"task_id": task.id, "owner_id": task.owner_id, "kind": kind, "attempt": task.attempt}
    await session.execute(CHANGE_EVENT, event)
    await session.refresh(task)


async def _duplicate(session: AsyncSession, owner_id: UUID, type_: str, dedup_key: str | None) -> DuplicateTask:
    holder = select(col(Task.id)).where(
        col(Task.owner_id) == owner_id,
        col(Task.type) == type_,
        col(Task.dedup_key) == dedup_key,
        col(Task.finished_at).is_(None),
    )
    return duplicate(dedup_key, (await session.execute(holder)).scalar_one_or_none())
