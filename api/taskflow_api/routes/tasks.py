"""/tasks: list, cancel, retry, and what a task left behind."""

from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID

from fastapi import APIRouter, Query
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response, StreamingResponse

from taskflow_api import cursors
from taskflow_api.conditions import IfMatch
from taskflow_api.dependencies import CurrentActor, Opened, Session
from taskflow_api.filters import task_filter
from taskflow_api.rendering import attempt_body, respond, task_body, task_response, to_json
from taskflow_api.schemas.tasks import (
    MAX_ROWS,
    AttemptList,
    Counting,
    FileList,
    ListQuery,
    TaskList,
    TaskResource,
)
from taskflow_core import files, listing, tasks
from taskflow_core.actors import Actor
from taskflow_core.clock import utc_now
from taskflow_core.errors import FieldProblem, Invalid
from taskflow_core.keyring import Keyring
from taskflow_core.listing import TaskFilter, Total

PREFIX = "/api/v1/tasks"
ONE: dict[int | str, dict[str, Any]] = {200: {"model": TaskResource}}
BINARY = {"*/*": {"schema": {"type": "string", "format": "binary"}}}

router = APIRouter(prefix=PREFIX, tags=["tasks"])


@router.get("", responses={200: {"model": TaskList}})
async def list_tasks(query: Annotated[ListQuery, Query()], opened: Opened, actor: CurrentActor) -> Response:
    """Return a page of tasks, newest first unless asked otherwise: after `cursor`, or number `page`."""
    filters = task_filter(query, actor)
    if query.page is not None:
        _check_page(query, query.page)

    async def page() -> bytes:
        async with opened.sessions() as session:
            return await _page(session, query, filters, actor=actor, keyring=opened.keyring)

    return Response(await opened.pages.ask((actor, query.model_dump_json()), page), media_type="application/json")


async def _page(
    session: AsyncSession, query: ListQuery, filters: TaskFilter, *, actor: Actor, keyring: Keyring
) -> bytes:
    total: Total | None = None
    after: UUID | None = None
    if query.page is not None:
        found = await listing.list_numbered(session, filters, actor=actor, limit=query.limit, page=query.page)
    else:
        after = None if query.cursor is None else cursors.decode(query.cursor, filters, actor, keyring)
        found, after = await listing.list_after(session, filters, actor=actor, limit=query.limit, after=after)
    if query.count is Counting.ESTIMATE:
        total = await listing.estimate(session, filters, actor=actor)
    elif query.count is Counting.EXACT or query.page is not None:
        total = await listing.count(session, filters, actor=actor)
    now = utc_now()
    body = {
        "items": [task_body(task, now=now) for task in found],
        "next_cursor": after and cursors.encode(after, filters, actor, keyring),
        "total": total and total.tasks,
        "total_kind": total and total.kind,
        "page": query.page,
        "limit": query.limit,
    }
    return to_json(body)


@router.post("/{task_id}:cancel", responses=ONE)
async def cancel(task_id: UUID, actor: CurrentActor, session: Session, expected: IfMatch) -> Response:
    """Cancel a task that waits; ask one that runs to stop (`cancel_requested`)."""
    task = await tasks.cancel(session, task_id, actor=actor, expected=expected)
    await session.commit()
    return task_response(task, now=utc_now())


@router.post("/{task_id}:retry", responses=ONE)
async def retry(task_id: UUID, opened: Opened, actor: CurrentActor, session: Session, expected: IfMatch) -> Response:
    """Give a FAILED task a fresh set of attempts."""
    task = await tasks.retry(session, task_id, actor=actor, expected=expected)
    await session.commit()
    await opened.queue.deliver([task])
    return task_response(task, now=utc_now())


@router.get("/{task_id}/attempts", responses={200: {"model": AttemptList}})
async def list_attempts(task_id: UUID, actor: CurrentActor, session: Session) -> Response:
    """Return the attempts of a task that have ended, oldest first."""
    attempts = await tasks.attempts(session, task_id, actor=actor)
    return respond({"items": [attempt_body(attempt) for attempt in attempts]})


@router.get("/{task_id}/files", responses={200: {"model": FileList}})
async def list_files(task_id: UUID, actor: CurrentActor, session: Session) -> Response:
    """Return the names, types and sizes of the files that a task made."""
    await tasks.get(session, task_id, actor=actor)
    found = await files.list_files(session, task_id, actor=actor)
    return respond({"items": [entry._asdict() for entry in found]})


@router.get("/{task_id}/files/{name}", response_class=Response, responses={200: {"content": BINARY}})
async def download_file(task_id: UUID, name: str, opened: Opened, actor: CurrentActor, session: Session) -> Response:
    """Return a file that a task made, as an attachment."""
    entry = await files.find(session, task_id, name, actor=actor)
    headers = {
        "Content-Length": str(entry.size),
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(entry.name, safe='')}",
    }
    pieces = files.read(opened.sessions, task_id, name, actor=actor)
    return StreamingResponse(pieces, headers=headers, media_type=entry.media_type)


def _check_page(query: ListQuery, page: int) -> None:
    if query.cursor is not None:
        raise Invalid("give a cursor or a page, not both", [FieldProblem("page", "must be left out beside a cursor")])
    if page * query.limit > MAX_ROWS:
        message = f"page times limit must be at most {MAX_ROWS}; go further with next_cursor"
        raise Invalid("that page is too far", [FieldProblem("page", message)])
