"""How schedules fire: each firing is one transaction that inserts the task and moves the schedule on.

The schedule's row is locked meanwhile and others skip it, and (schedule_id, fire_at) is unique among tasks: any number
of schedulers may run this. A schedule that cannot fire is paused with its reason instead of failing again and again.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from taskflow_core import cron, tasks
from taskflow_core.actors import Actor
from taskflow_core.cron import Misfire
from taskflow_core.errors import DuplicateTask, Invalid, TooMany
from taskflow_core.handlers import Registry
from taskflow_core.inserts import TaskRow
from taskflow_core.models.columns import Json
from taskflow_core.models.runtime import Schedule
from taskflow_core.models.users import Role, User
from taskflow_core.schedules import task_of
from taskflow_core.tasks import NewTask

ON_TIME = timedelta(seconds=60)  # a firing that is later than this was missed
FIRE_INDEX = "tasks_fire"
MAX_REASON = 500


class Outcome(StrEnum):
    """What became of a firing: a task, nothing this time, or a schedule that is paused because it cannot fire."""

    FIRED = "fired"
    SKIPPED = "skipped"
    BROKEN = "broken"


class Firing(NamedTuple):
    """A firing that was due, what became of it and why."""

    schedule_id: UUID
    fire_at: datetime
    outcome: Outcome
    reason: str = ""
    task: TaskRow | None = None


class Due(NamedTuple):
    """A schedule whose time has come, with the database's now."""

    id: UUID
    owner_id: UUID
    cron: str
    timezone: str
    misfire: str
    template: Json
    fire_at: datetime
    now: datetime
    is_disabled: bool


async def fire_next(session: AsyncSession, registry: Registry, *, max_pending: int) -> Firing | None:
    """Fire the schedule that has been due for longest; None when none is.

    The caller commits, and then hands `task` to `queue.deliver`.
    """
    due = await _lock_due(session)
    if due is None:
        return None
    try:
        upcoming = next(cron.firings(due.cron, due.timezone, after=due.now), None)
        new = _new_task(due, registry)
    except Invalid as error:
        return await _pause(session, due, _reason(error))
    if due.is_disabled:
        return await _pause(session, due, "the account of its owner is disabled")
    firing = await _fire(session, due, new, max_pending=max_pending)
    if firing.outcome is Outcome.BROKEN:
        return await _pause(session, due, firing.reason)
    await _move_on(session, due, next_fire_at=upcoming, fired=firing.outcome is Outcome.FIRED)
    return firing


async def _lock_due(session: AsyncSession) -> Due | None:
    statement = (
        select(
            col(Schedule.id),
            col(Schedule.owner_id),
            col(Schedule.cron),
            col(Schedule.timezone),
            col(Schedule.misfire),
            col(Schedule.template),
            col(Schedule.next_fire_at),
            func.clock_timestamp(),
            col(User.disabled_at).is_not(None),
        )
        .join(User, col(User.id) == col(Schedule.owner_id))
        .where(col(Schedule.paused_at).is_(None), col(Schedule.next_fire_at) <= func.statement_timestamp())
        .order_by(col(Schedule.next_fire_at))
        .limit(1)
        .with_for_update(of=Schedule, skip_locked=True)
    )
    row = (await session.execute(statement)).one_or_none()
    return None if row is None else Due(*row)


def _new_task(due: Due, registry: Registry) -> NewTask:
    try:
        return task_of(due.template, registry)
    except Invalid:
        raise
    except Exception as error:  # a plugin's model may raise anything, and must not stop the others
        raise Invalid(f"its payload cannot be read: {type(error).__name__}") from error


async def _fire(session: AsyncSession, due: Due, new: NewTask, *, max_pending: int) -> Firing:
    """Insert the task unless the firing was missed or may not be; the transaction may have been rolled back."""
    if due.now - due.fire_at > ON_TIME and due.misfire == Misfire.SKIP:
        return Firing(due.id, due.fire_at, Outcome.SKIPPED, "missed")
    new = replace(new, schedule_id=due.id, fire_at=due.fire_at)
    actor = Actor(due.owner_id, Role.USER)
    try:
        task = await tasks.create(session, new, actor=actor, max_pending=max_pending)
    except (DuplicateTask, TooMany) as refused:
        return Firing(due.id, due.fire_at, Outcome.SKIPPED, refused.message)
    except (IntegrityError, DataError) as error:
        await session.rollback()
        if FIRE_INDEX in str(error.orig):
            return Firing(due.id, due.fire_at, Outcome.SKIPPED, "its task exists already")
        return Firing(due.id, due.fire_at, Outcome.BROKEN, f"its task cannot be stored: {type(error.orig).__name__}")
    return Firing(due.id, due.fire_at, Outcome.FIRED, task=task)


async def _pause(session: AsyncSession, due: Due, reason: str) -> Firing:
    await _change(session, due, {"paused_at": due.now, "paused_reason": reason[:MAX_REASON]})
    return Firing(due.id, due.fire_at, Outcome.BROKEN, reason)


async def _move_on(session: AsyncSession, due: Due, *, next_fire_at: datetime | None, fired: bool) -> None:
    changes: dict[str, object] = {"next_fire_at": next_fire_at}
    await _change(session, due, changes | ({"last_fire_at": due.fire_at} if fired else {}))


async def _change(session: AsyncSession, due: Due, changes: dict[str, object]) -> None:
    """Change the schedule if it still stands where it was: a refused task has given the lock back."""
    await session.execute(
        update(Schedule)
        .where(col(Schedule.id) == due.id, col(Schedule.next_fire_at) == due.fire_at, col(Schedule.paused_at).is_(None))
        .values(updated_at=func.now(), **changes)
        .execution_options(synchronize_session=False)
    )


def _reason(error: Invalid) -> str:
    fields: Sequence[str] = [f"{name}: {message}" for name, message in error.fields]
    return "; ".join([error.message, *fields])
