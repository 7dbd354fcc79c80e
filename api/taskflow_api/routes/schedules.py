"""/schedules: tasks that a cron expression creates."""

from datetime import datetime
from itertools import islice
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from taskflow_api.body import read
from taskflow_api.conditions import IfMatch, etag
from taskflow_api.dependencies import CurrentActor, Opened, Session
from taskflow_api.openapi import takes
from taskflow_api.rendering import respond
from taskflow_api.schemas.schedules import (
    NewScheduleBody,
    ScheduleDetail,
    ScheduleEdit,
    ScheduleList,
    ScheduleListQuery,
)
from taskflow_core import cron, schedules
from taskflow_core.clock import utc_now
from taskflow_core.errors import Invalid
from taskflow_core.models.runtime import Schedule
from taskflow_core.schedules import NewSchedule

PREFIX = "/api/v1/schedules"
SHOWN_FIRINGS = 5
ONE: dict[int | str, dict[str, Any]] = {200: {"model": ScheduleDetail}}

router = APIRouter(prefix=PREFIX, tags=["schedules"])


@router.post("", status_code=201, responses={201: {"model": ScheduleDetail}}, openapi_extra=takes(NewScheduleBody))
async def create(request: Request, opened: Opened, actor: CurrentActor, session: Session) -> Response:
    """Make a schedule; its first firing is the next one from now."""
    body = await read(request, NewScheduleBody)
    new = NewSchedule(
        name=body.name,
        cron=body.cron,
        timezone=body.timezone,
        misfire=body.misfire,
        template=body.task.model_dump(mode="json"),
    )
    schedule = await schedules.create(session, new, actor=actor, registry=opened.registry)
    await session.commit()
    return _respond(schedule, status=201, headers={"Location": f"{PREFIX}/{schedule.id}"})


@router.get("", responses={200: {"model": ScheduleList}})
async def list_schedules(
    query: Annotated[ScheduleListQuery, Query()], actor: CurrentActor, session: Session
) -> Response:
    """Return a page of schedules, newest first."""
    page = await schedules.list_after(session, actor=actor, limit=query.limit, after=query.cursor)
    return respond({"items": [_body(schedule) for schedule in page.schedules], "next_cursor": page.next_after})


@router.get("/{schedule_id}", responses=ONE)
async def get(schedule_id: UUID, actor: CurrentActor, session: Session) -> Response:
    """Return one schedule with its next firings."""
    return _respond(await schedules.get(session, schedule_id, actor=actor))


@router.patch("/{schedule_id}", responses=ONE, openapi_extra=takes(ScheduleEdit))
async def edit(
    request: Request, schedule_id: UUID, opened: Opened, actor: CurrentActor, session: Session, expected: IfMatch
) -> Response:
    """Change a schedule; one that is paused stays paused."""
    body = await read(request, ScheduleEdit)
    changes = body.model_dump(mode="json", include=body.model_fields_set - {"task"})
    if body.task is not None:
        changes["template"] = body.task.model_dump(mode="json")
    schedule = await schedules.edit(
        session, schedule_id, changes, actor=actor, registry=opened.registry, expected=expected
    )
    await session.commit()
    return _respond(schedule)


@router.post("/{schedule_id}:pause", responses=ONE)
async def pause(schedule_id: UUID, actor: CurrentActor, session: Session, expected: IfMatch) -> Response:
    """Stop a schedule from firing."""
    schedule = await schedules.pause(session, schedule_id, actor=actor, expected=expected)
    await session.commit()
    return _respond(schedule)


@router.post("/{schedule_id}:resume", responses=ONE)
async def resume(
    schedule_id: UUID, opened: Opened, actor: CurrentActor, session: Session, expected: IfMatch
) -> Response:
    """Let a schedule fire again, from the next time on."""
    schedule = await schedules.resume(session, schedule_id, actor=actor, registry=opened.registry, expected=expected)
    await session.commit()
    return _respond(schedule)


@router.delete("/{schedule_id}", status_code=204)
async def remove(schedule_id: UUID, actor: CurrentActor, session: Session, expected: IfMatch) -> Response:
    """Delete a schedule; the tasks that it made stay."""
    await schedules.remove(session, schedule_id, actor=actor, expected=expected)
    await session.commit()
    return Response(status_code=204)


def _respond(schedule: Schedule, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    about = {"ETag": etag(schedules.version_of(schedule))} | (headers or {})
    return respond(_detail(schedule), status=status, headers=about)


def _detail(schedule: Schedule) -> dict[str, Any]:
    return _body(schedule) | {"next_firings": _next_firings(schedule)}


def _next_firings(schedule: Schedule) -> list[datetime]:
    if schedule.paused_at is not None:
        return []
    try:
        return list(islice(cron.firings(schedule.cron, schedule.timezone, after=utc_now()), SHOWN_FIRINGS))
    except Invalid:  # this machine does not know the time zone that another one did
        return []


def _body(schedule: Schedule) -> dict[str, Any]:
    """Return the fields of ScheduleResource."""
    return {
        "id": schedule.id,
        "name": schedule.name,
        "cron": schedule.cron,
        "timezone": schedule.timezone,
        "misfire": schedule.misfire,
        "task": schedule.template,
        "paused": schedule.paused_at is not None,
        "paused_reason": schedule.paused_reason,
        "next_fire_at": schedule.next_fire_at if schedule.paused_at is None else None,
        "last_fire_at": schedule.last_fire_at,
        "created_at": schedule.created_at,
        "updated_at": schedule.updated_at,
        "owner_id": schedule.owner_id,
    }
