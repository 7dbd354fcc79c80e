"""What happens: events of one task or of all, and what handlers log; as a page, or as a stream that goes on."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from taskflow_api import streams
from taskflow_api.dependencies import CurrentActor, Opened, Resources, Session
from taskflow_api.rendering import respond
from taskflow_api.schemas.events import EventList, EventsQuery, LinesQuery, LogLineList, PageQuery, TaskEventsQuery
from taskflow_api.streams import EventStream, LastEventId, event_body, line_body
from taskflow_core import events, tasks
from taskflow_core.actors import Actor
from taskflow_core.events import Event, EventFilter, Line
from taskflow_core.lifecycle import FINAL

STEPS = 20  # windows of ids that one page looks through; it may hold less than `limit`
STREAM: dict[str, Any] = {"text/event-stream": {"schema": {"type": "string"}}}
OVER: dict[str, Any] = {"description": "The stream that was to be resumed is over: the task has finished"}
EVENTS: dict[int | str, dict[str, Any]] = {200: {"model": EventList, "content": STREAM}, 204: OVER}
LINES: dict[int | str, dict[str, Any]] = {200: {"model": LogLineList, "content": STREAM}, 204: OVER}

router = APIRouter(prefix="/api/v1", tags=["events"])


@router.get("/events", responses=EVENTS)
async def list_events(
    request: Request,
    query: Annotated[EventsQuery, Query()],
    last_id: LastEventId,
    opened: Opened,
    actor: CurrentActor,
    session: Session,
) -> Response:
    """Return what happened to your tasks (OPERATOR and ADMIN: to all) after an id, or the newest; or follow it."""
    if query.task is not None:
        return await _of_task(query.task, request, query, last_id, opened, actor, session)
    filters = EventFilter(
        owner_id=None if actor.sees_all else actor.user_id, kind=query.kind, type=query.type, queue=query.queue
    )
    await session.close()
    if streams.is_wanted(request):
        after = query.after if last_id is None else last_id
        # Known before the client reads that its stream is open: what happens from then on belongs to it.
        start = await opened.feed.position() if after is None else after
        follow = partial(streams.all_events, opened.feed, after=start, filters=filters)
        return _stream(request, opened, follow, filters)
    return respond(await _page(opened, query, filters))


@router.get("/tasks/{task_id}/events", responses=EVENTS)
async def list_task_events(
    task_id: UUID,
    request: Request,
    query: Annotated[TaskEventsQuery, Query()],
    last_id: LastEventId,
    opened: Opened,
    actor: CurrentActor,
    session: Session,
) -> Response:
    """Return what happened to a task after an id; or all of it and what goes on, until the task has finished."""
    return await _of_task(task_id, request, query, last_id, opened, actor, session)


@router.get("/tasks/{task_id}/logs", responses=LINES)
async def list_lines(
    task_id: UUID,
    request: Request,
    query: Annotated[LinesQuery, Query()],
    last_id: LastEventId,
    opened: Opened,
    actor: CurrentActor,
    session: Session,
) -> Response:
    """Return what a task's handler logged after an id; or all of it and what goes on, until the task has finished."""
    task = await tasks.get(session, task_id, actor=actor)
    await session.close()
    after = last_id or query.after or 0
    read = partial(events.lines, task_id=task_id, after=after, level=query.level, attempt=query.attempt)
    if not streams.is_wanted(request):
        return respond(_listed(await opened.feed.read(partial(read, limit=query.limit + 1)), query, after))
    if last_id is not None and task.status in FINAL and not await opened.feed.read(partial(read, limit=1)):
        return Response(status_code=204)
    follow = partial(streams.task_lines, opened.feed, task_id, after=after, level=query.level, attempt=query.attempt)
    return _stream(request, opened, follow)


async def _of_task(
    task_id: UUID,
    request: Request,
    query: TaskEventsQuery,
    last_id: int | None,
    opened: Resources,
    actor: Actor,
    session: Session,
) -> Response:
    task = await tasks.get(session, task_id, actor=actor)
    await session.close()
    after = last_id or query.after or 0
    read = partial(events.of_task, task_id=task_id, after=after, kind=query.kind)
    if not streams.is_wanted(request):
        return respond(_listed(await opened.feed.read(partial(read, limit=query.limit + 1)), query, after))
    if last_id is not None and task.status in FINAL and not await opened.feed.read(partial(read, limit=1)):
        return Response(status_code=204)
    follow = partial(streams.task_events, opened.feed, task_id, after=after, kind=query.kind)
    return _stream(request, opened, follow)


async def _page(opened: Resources, query: EventsQuery, filters: EventFilter) -> dict[str, Any]:
    if query.after is None:
        found, cursor = await opened.feed.newest(filters, limit=query.limit)
        return {"items": [event_body(event) for event in found], "next_after": cursor, "more": False}
    items: list[Event] = []
    cursor = query.after
    upto = await opened.feed.newest_position()
    for _ in range(STEPS):
        found, cursor = await opened.feed.following(cursor, filters, limit=query.limit - len(items))
        items += found
        more = cursor < upto
        if len(items) == query.limit or not more:
            break
    return {"items": [event_body(event) for event in items], "next_after": cursor, "more": more}


def _listed(rows: Sequence[Event] | Sequence[Line], query: PageQuery, after: int) -> dict[str, Any]:
    shown = rows[: query.limit]
    return {
        "items": [event_body(row) if isinstance(row, Event) else line_body(row) for row in shown],
        "next_after": shown[-1].id if shown else after,
        "more": len(rows) > len(shown),
    }


def _stream(
    request: Request, opened: Resources, follow: streams.Follow, filters: EventFilter | None = None
) -> Response:
    return EventStream(opened.feed, follow, identity=request.state.identity, filters=filters)
