"""/tasks: create, read, list, cancel, retry, and what a task left behind."""

from datetime import datetime, timedelta
from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from taskflow_api import cursors, waiting
from taskflow_api.body import read
from taskflow_api.dependencies import CurrentActor, Opened, Session
from taskflow_api.idempotency import REPLAYED, IdempotencyKey
from taskflow_api.openapi import takes
from taskflow_api.rendering import attempt_body, respond, task_body, task_response, to_json
from taskflow_api.schemas.tasks import (
    MAX_ROWS,
    AttemptList,
    BulkRetryBody,
    BulkRetryResult,
    FileList,
    ListQuery,
    NewTaskBody,
    TaskList,
    TaskResource,
)
from taskflow_api.waiting import PreferredWait
from taskflow_core import bulk, files, idempotency, tasks
from taskflow_core.actors import Actor
from taskflow_core.clock import utc_now
from taskflow_core.errors import FieldProblem, Forbidden, Invalid
from taskflow_core.handlers import TaskType
from taskflow_core.tasks import NewTask, TaskFilter
from taskflow_core.validation import checked_payload, known_type

PREFIX = "/api/v1/tasks"
DELIVERED_AT_ONCE = 1000
ONE: dict[int | str, dict[str, Any]] = {200: {"model": TaskResource}}
BINARY = {"*/*": {"schema": {"type": "string", "format": "binary"}}}

router = APIRouter(prefix=PREFIX, tags=["tasks"])


@router.post("", status_code=201, responses={201: {"model": TaskResource}}, openapi_extra=takes(NewTaskBody))
async def create(
    request: Request, opened: Opened, actor: CurrentActor, session: Session, key: IdempotencyKey, wait_s: PreferredWait
) -> Response:
    """Create a task. It is stored when this answers 201, and runs at least once."""
    body = await read(request, NewTaskBody)
    now = utc_now()
    new = _new_task(body, known_type(opened.registry, body.type), now=now)
    if key is not None:
        digest = idempotency.hash_of("create task", body.model_dump(mode="json", exclude_unset=True))
        stored = await idempotency.claim(session, key, actor=actor, request_hash=digest)
        if stored is not None:
            return _created(stored, headers=REPLAYED)
    task = await tasks.create(session, new, actor=actor, max_pending=opened.settings.max_pending_tasks)
    answer = task_body(task, now=now)
    if key is not None:
        await idempotency.keep(session, key, actor=actor, task_id=task.id, response=to_json(answer))
    await session.commit()
    await opened.queue.deliver([task])
    opened.metrics.task_created(task.type)
    waited = await waiting.until_final(opened, task.id, seconds=wait_s)
    if waited:
        answer = await waiting.body_now(opened, task.id, actor=actor) or answer
    return _created(answer, headers=waited)


@router.get("", responses={200: {"model": TaskList}})
async def list_tasks(
    query: Annotated[ListQuery, Query()], opened: Opened, actor: CurrentActor, session: Session
) -> Response:
    """Return a page of tasks, newest first: after `cursor`, or number `page`."""
    filters = _filters(query, actor)
    body: dict[str, Any] = {"next_cursor": None, "total": None, "page": query.page, "limit": query.limit}
    if query.page is not None:
        _check_page(query, query.page)
        found, body["total"] = await tasks.list_numbered(
            session, filters, actor=actor, limit=query.limit, page=query.page
        )
    else:
        after = None if query.cursor is None else cursors.decode(query.cursor, filters, actor, opened.keyring)
        found, last = await tasks.list_after(session, filters, actor=actor, limit=query.limit, after=after)
        body["next_cursor"] = last and cursors.encode(last, filters, actor, opened.keyring)
    now = utc_now()
    return respond({"items": [task_body(task, now=now) for task in found], **body})


@router.post(":bulkRetry", responses={200: {"model": BulkRetryResult}}, openapi_extra=takes(BulkRetryBody))
async def bulk_retry(request: Request, opened: Opened, actor: CurrentActor, session: Session) -> Response:
    """Give all FAILED tasks of a filter a fresh set of attempts, if there are as many as expected."""
    body = await read(request, BulkRetryBody)
    filters = TaskFilter(**body.filter.model_dump())
    _check_reach(filters, actor, field="filter.owner_id")
    done = await bulk.retry_failed(session, filters, actor=actor, expected_count=body.expected_count)
    await session.commit()
    for start in range(0, len(done.retried), DELIVERED_AT_ONCE):
        await opened.queue.deliver(done.retried[start : start + DELIVERED_AT_ONCE])
    return respond({"retried": len(done.retried), "skipped": done.skipped})


@router.get("/{task_id}", responses=ONE)
async def get(task_id: UUID, opened: Opened, actor: CurrentActor, session: Session, wait_s: PreferredWait) -> Response:
    """Return one task; with `Prefer: wait=N`, once it has finished or N seconds are over."""
    task = await tasks.get(session, task_id, actor=actor)
    await session.close()
    waited = await waiting.until_final(opened, task_id, seconds=wait_s)
    if waited:
        task = await tasks.get(session, task_id, actor=actor)
    return task_response(task, now=utc_now(), headers=waited)


@router.post("/{task_id}:cancel", responses=ONE)
async def cancel(task_id: UUID, actor: CurrentActor, session: Session) -> Response:
    """Cancel a task that waits; ask one that runs to stop (`cancel_requested`)."""
    task = await tasks.cancel(session, task_id, actor=actor)
    await session.commit()
    return task_response(task, now=utc_now())


@router.post("/{task_id}:retry", responses=ONE)
async def retry(task_id: UUID, opened: Opened, actor: CurrentActor, session: Session) -> Response:
    """Give a FAILED task a fresh set of attempts."""
    task = await tasks.retry(session, task_id, actor=actor)
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


def _created(answer: dict[str, Any], *, headers: dict[str, str] | None = None) -> Response:
    about = {"ETag": f'"{answer["version"]}"', "Location": f"{PREFIX}/{answer['id']}"}
    return respond(answer, status=201, headers=about | (headers or {}))


def _new_task(body: NewTaskBody, kind: TaskType, *, now: datetime) -> NewTask:
    return NewTask(
        type=kind.name,
        payload=checked_payload(kind, body.payload),
        title=body.title,
        queue=body.queue,
        priority=body.priority,
        run_at=body.run_at if body.delay_s is None else now + timedelta(seconds=body.delay_s),
        max_attempts=body.max_attempts,
        timeout_s=body.timeout_s or kind.timeout_s,
        dedup_key=body.dedup_key,
        tags=body.tags,
    )


def _filters(query: ListQuery, actor: Actor) -> TaskFilter:
    filters = TaskFilter(**query.model_dump(exclude={"limit", "cursor", "page"}))
    _check_reach(filters, actor, field="owner_id")
    return filters


def _check_reach(filters: TaskFilter, actor: Actor, *, field: str) -> None:
    if filters.owner_id is not None and not actor.sees_all and filters.owner_id != actor.user_id:
        raise Forbidden(f"only an OPERATOR or an ADMIN may ask for the tasks of others ({field})")


def _check_page(query: ListQuery, page: int) -> None:
    if query.cursor is not None:
        raise Invalid("give a cursor or a page, not both", [FieldProblem("page", "must be left out beside a cursor")])
    if page * query.limit > MAX_ROWS:
        message = f"page times limit must be at most {MAX_ROWS}; go further with next_cursor"
        raise Invalid("that page is too far", [FieldProblem("page", message)])
