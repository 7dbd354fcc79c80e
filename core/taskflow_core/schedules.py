"""Use-cases of cron schedules: create, get, list, edit, pause, resume, delete. None commits; the caller does."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from taskflow_core import cron
from taskflow_core.actors import Actor
from taskflow_core.cron import Misfire
from taskflow_core.errors import NotFound, TooMany
from taskflow_core.handlers import Registry
from taskflow_core.identifiers import new_id
from taskflow_core.models.columns import Json
from taskflow_core.models.runtime import Schedule
from taskflow_core.tasks import NewTask
from taskflow_core.validation import checked_payload, known_type
from taskflow_core.versions import Expected, check_version

MAX_PER_OWNER = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSchedule:
    """A request for a schedule. `template` holds the fields of NewTask, the payload as it was given."""

    name: str
    cron: str
    timezone: str
    misfire: Misfire
    template: Json


class Page(NamedTuple):
    """Schedules, newest first, and the id after which the next page starts (None at the end)."""

    schedules: list[Schedule]
    next_after: UUID | None


def task_of(template: Json, registry: Registry, *, prefix: tuple[str, ...] = ()) -> NewTask:
    """Return the task that a template asks for; `prefix` is where a request holds the template.

    Raises:
        UnknownType: its type is not installed.
        Invalid: its payload is not what the type asks for.
    """
    kind = known_type(registry, template["type"], prefix=prefix)
    fields = {name: value for name, value in template.items() if value is not None}
    return NewTask(
        **{"timeout_s": kind.timeout_s, **fields, "payload": checked_payload(kind, template["payload"], prefix=prefix)}
    )


async def create(session: AsyncSession, new: NewSchedule, *, actor: Actor, registry: Registry) -> Schedule:
    """Insert a schedule whose first firing lies ahead.

    Raises:
        Invalid: its cron expression, time zone, type or payload is wrong; names the field.
        TooMany: the owner has MAX_PER_OWNER schedules.
    """
    task_of(new.template, registry, prefix=("task",))
    mine = select(func.count()).select_from(Schedule).where(col(Schedule.owner_id) == actor.user_id)
    if (await session.execute(mine)).scalar_one() >= MAX_PER_OWNER:
        raise TooMany(f"you have {MAX_PER_OWNER} schedules; delete one that you do not need", retry_after_s=60)
    schedule = Schedule(
        id=new_id(),
        owner_id=actor.user_id,
        name=new.name,
        cron=new.cron,
        timezone=new.timezone,
        misfire=new.misfire,
        template=new.template,
        next_fire_at=cron.first(new.cron, new.timezone, after=await _now(session)),
    )
    session.add(schedule)
    await session.flush()
    await session.refresh(schedule)
    return schedule


async def get(session: AsyncSession, schedule_id: UUID, *, actor: Actor, lock: bool = False) -> Schedule:
    """Return one schedule; with `lock`, nobody else changes or fires it until the transaction ends.

    Raises:
        NotFound: no such schedule, or another owner's.
    """
    statement = select(Schedule).where(col(Schedule.id) == schedule_id, *_reach(actor))
    if lock:
        statement = statement.with_for_update()
    schedule = (await session.execute(statement)).scalar_one_or_none()
    if schedule is None:
        raise NotFound(f"there is no schedule {schedule_id}")
    return schedule


async def list_after(session: AsyncSession, *, actor: Actor, limit: int, after: UUID | None) -> Page:
    """Return a page of schedules that come after the given id (newest first)."""
    statement = select(Schedule).where(*_reach(actor)).order_by(col(Schedule.id).desc())
    if after is not None:
        statement = statement.where(col(Schedule.id) < after)
    found = list((await session.execute(statement.limit(limit + 1))).scalars())
    return Page(found[:limit], found[limit - 1].id if len(found) > limit else None)


async def lock(session: AsyncSession, schedule_id: UUID, *, actor: Actor, expected: Expected = None) -> Schedule:
    """Return one schedule that nobody else changes or fires until the transaction ends.

    Raises:
        NotFound: no such schedule, or another owner's.
        StaleVersion: its version is none of those `expected`.
    """
    schedule = await get(session, schedule_id, actor=actor, lock=True)
    check_version(version_of(schedule), expected)
    return schedule


def version_of(schedule: Schedule) -> str:
    """Return a name of this state of the schedule; a firing changes it too."""
    return f"{int(schedule.updated_at.timestamp() * 1_000_000):x}"


async def edit(
    session: AsyncSession,
    schedule_id: UUID,
    changes: Mapping[str, Any],
    *,
    actor: Actor,
    registry: Registry,
    expected: Expected = None,
) -> Schedule:
    """Change fields of a schedule, named as in NewSchedule; a new expression or time zone counts from now on.

    One that is paused stays paused.

    Raises:
        NotFound: no such schedule, or another owner's.
        StaleVersion: its version is none of those `expected`.
        Invalid: its cron expression, time zone, type or payload is wrong; names the field.
    """
    schedule = await lock(session, schedule_id, actor=actor, expected=expected)
    now = await _now(session)
    if "template" in changes:
        task_of(changes["template"], registry, prefix=("task",))
    for name, value in changes.items():
        setattr(schedule, name, value)
    if {"cron", "timezone"} & changes.keys():
        schedule.next_fire_at = cron.first(schedule.cron, schedule.timezone, after=now)
    schedule.updated_at = now
    return schedule


async def pause(session: AsyncSession, schedule_id: UUID, *, actor: Actor, expected: Expected = None) -> Schedule:
    """Stop a schedule from firing; one that is paused stays as it is.

    Raises:
        NotFound: no such schedule, or another owner's.
        StaleVersion: its version is none of those `expected`.
    """
    schedule = await lock(session, schedule_id, actor=actor, expected=expected)
    if schedule.paused_at is None:
        schedule.paused_at = schedule.updated_at = await _now(session)
    return schedule


async def resume(
    session: AsyncSession, schedule_id: UUID, *, actor: Actor, registry: Registry, expected: Expected = None
) -> Schedule:
    """Let a schedule fire again, from the next time on; what it missed meanwhile is not made up for.

    Raises:
        NotFound: no such schedule, or another owner's.
        StaleVersion: its version is none of those `expected`.
        Invalid: it cannot fire as it is: its type is gone, or its payload no longer what the type asks for.
    """
    schedule = await lock(session, schedule_id, actor=actor, expected=expected)
    if schedule.paused_at is not None:
        task_of(schedule.template, registry, prefix=("task",))
        now = await _now(session)
        schedule.next_fire_at = cron.first(schedule.cron, schedule.timezone, after=now)
        schedule.paused_at = schedule.paused_reason = None
        schedule.updated_at = now
    return schedule


async def remove(session: AsyncSession, schedule_id: UUID, *, actor: Actor, expected: Expected = None) -> None:
    """Delete a schedule; the tasks that it made stay.

    Raises:
        NotFound: no such schedule, or another owner's.
        StaleVersion: its version is none of those `expected`.
    """
    await session.delete(await lock(session, schedule_id, actor=actor, expected=expected))


async def _now(session: AsyncSession) -> datetime:
    now: datetime = (await session.execute(select(func.clock_timestamp()))).scalar_one()
    return now


def _reach(actor: Actor) -> list[ColumnElement[bool]]:
    return [] if actor.sees_all else [col(Schedule.owner_id) == actor.user_id]
