"""/tasks: cancel, retry, and what a task left behind."""

from typing import Any
from urllib.parse import quote
from uuid import UUID

from fastapi import APIRouter
from starlette.responses import Response, StreamingResponse

from taskflow_api.conditions import IfMatch
from taskflow_api.dependencies import CurrentActor, Opened, Session
from taskflow_api.rendering import attempt_body, respond, task_response
from taskflow_api.schemas.tasks import AttemptList, FileList, TaskResource
from taskflow_core import files, tasks
from taskflow_core.clock import utc_now

PREFIX = "/api/v1/tasks"
ONE: dict[int | str, dict[str, Any]] = {200: {"model": TaskResource}}
BINARY = {"*/*": {"schema": {"type": "string", "format": "binary"}}}

router = APIRouter(prefix=PREFIX, tags=["tasks"])


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
