"""Use-cases that change a task by hand: edit, delete, copy. None commits; the caller does, once, visibly."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from taskflow_core.actors import Actor
from taskflow_core.errors import Conflict, FieldProblem, Invalid
from taskflow_core.lanes import lane_of
from taskflow_core.lifecycle import FINAL, TaskStatus
from taskflow_core.models.tasks import Task
from taskflow_core.tasks import CHANGE_EVENT, NewTask, get, lock
from taskflow_core.versions import Expected

LABELS = frozenset({"title", "tags"})  # may change at any time: nothing goes by them
PLAN = frozenset({"queue", "priority", "run_at", "delay_s", "max_attempts", "timeout_s"})

# A task keeps its delivery where that still holds: same lane, still due. Else it gets another one, now or when it is
# due, and the old delivery claims nothing early (run_at), nor for a worker that does not serve the queue.
EDIT = text("""
UPDATE tasks SET title = :title, tags = CAST(:tags AS text[]), queue = :queue, priority = :priority, lane = :lane,
  max_attempts = :max_attempts, timeout_s = :timeout_s, run_at = new.run_at,
  enqueued_at = CASE WHEN tasks.status <> 'PENDING' THEN tasks.enqueued_at WHEN new.run_at > clock_timestamp() THEN NULL
    WHEN tasks.lane = :lane THEN COALESCE(tasks.enqueued_at, clock_timestamp()) ELSE clock_timestamp() END,
  row_version = row_version + 1, updated_at = clock_timestamp()
FROM (SELECT COALESCE(CAST(:run_at AS timestamptz),
  clock_timestamp() + make_interval(secs => CAST(:delay_s AS float8))) AS run_at) AS new
WHERE tasks.id = :id AND tasks.row_version = :version
""")

DELETE = text("""
WITH attempts AS (DELETE FROM task_attempts WHERE task_id = :id),
  events AS (DELETE FROM task_events WHERE task_id = :id),
  logs AS (DELETE FROM task_logs WHERE task_id = :id)
DELETE FROM tasks WHERE id = :id
""")


class Placed(NamedTuple):
    """Where a task's delivery was put, if it has one."""

    id: UUID
    lane: str
    enqueued_at: datetime | None


class Edited(NamedTuple):
    """A task that was changed, and what its delivery was before (None: it keeps the one it had)."""

    task: Task
    replaced: Placed | None


async def edit(
    session: AsyncSession, task_id: UUID, changes: Mapping[str, Any], *, actor: Actor, expected: Expected = None
) -> Edited:
    """Change a task: its LABELS at any time, its PLAN while it is PENDING.

    After the commit, where `replaced` is given, the caller withdraws that and hands the task to `queue.deliver`.

    Raises:
        NotFound: no such task, or another owner's.
        StaleVersion: its version is none of those `expected`.
        Conflict: it is no longer PENDING.
        Invalid: `max_attempts` leaves no attempt.
    """
    task = await lock(session, task_id, actor=actor, expected=expected)
    planned = sorted(PLAN & changes.keys())
    if planned and task.status != TaskStatus.PENDING:
        raise Conflict(f"the task is {task.status}: {', '.join(planned)} can be changed only while it is PENDING")
    if "max_attempts" in changes and changes["max_attempts"] <= task.attempt:
        message = f"must be more than {task.attempt}, the attempts made so far"
        raise Invalid("no attempt would be left", [FieldProblem("max_attempts", message)])
    before = Placed(task.id, task.lane, task.enqueued_at)
    await session.execute(EDIT, _parameters(task, changes))
    event = {"task_id": task.id, "owner_id": task.owner_id, "kind": "task.edited", "attempt": task.attempt}
    await session.execute(CHANGE_EVENT, event)
    await session.refresh(task)
    after = Placed(task.id, task.lane, task.enqueued_at)
    return Edited(task, before if after != before else None)


async def remove(session: AsyncSession, task_id: UUID, *, actor: Actor, expected: Expected = None) -> None:
    """Delete a finished task with its attempts, events, logs and files.

    Raises:
        NotFound: no such task, or another owner's.
        StaleVersion: its version is none of those `expected`.
        Conflict: it has not finished.
    """
    task = await lock(session, task_id, actor=actor, expected=expected)
    if task.status not in FINAL:
        raise Conflict(f"the task is {task.status}: cancel it first, and delete it when it has ended")
    await session.execute(DELETE, {"id": task_id})


async def template(session: AsyncSession, task_id: UUID, *, actor: Actor) -> NewTask:
    """Return what a copy of a task is made of: all that was asked for, but its time, dedup_key and schedule.

    Raises:
        NotFound: no such task, or another owner's.
    """
    task = await get(session, task_id, actor=actor)
    return NewTask(
        type=task.type,
        payload=task.payload,
        title=task.title,
        queue=task.queue,
        priority=task.priority,
        max_attempts=task.max_attempts,
        timeout_s=task.timeout_s,
        tags=task.tags,
    )


def _parameters(task: Task, changes: Mapping[str, Any]) -> dict[str, Any]:
    names = ("title", "tags", "queue", "priority", "max_attempts", "timeout_s")
    wanted = {name: changes.get(name, getattr(task, name)) for name in names}
    lane = task.lane
    if {"queue", "priority"} & changes.keys():
        crowded = task.priority == 0 and task.lane != lane_of(task.queue, 0)
        lane = lane_of(wanted["queue"], wanted["priority"], crowded=crowded)
    delay_s = changes.get("delay_s")
    run_at = None if delay_s is not None else changes.get("run_at", task.run_at)
    keys = {"id": task.id, "version": task.row_version}
    return {**wanted, **keys, "lane": lane, "run_at": run_at, "delay_s": delay_s}
