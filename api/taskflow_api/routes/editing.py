"""/tasks/{id}: change, delete and copy a task."""

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from taskflow_api.body import read
from taskflow_api.conditions import IfMatch, etag
from taskflow_api.dependencies import CurrentActor, Opened, Session
from taskflow_api.idempotency import REPLAYED, IdempotencyKey
from taskflow_api.openapi import takes
from taskflow_api.rendering import respond, task_body, task_response, to_json
from taskflow_api.schemas.tasks import CloneBody, TaskEdit, TaskResource
from taskflow_core import editing, idempotency, tasks
from taskflow_core.clock import utc_now
from taskflow_core.tasks import NewTask
from taskflow_core.validation import checked_payload, known_type

PREFIX = "/api/v1/tasks"

router = APIRouter(prefix=PREFIX, tags=["tasks"])


@router.patch("/{task_id}", responses={200: {"model": TaskResource}}, openapi_extra=takes(TaskEdit))
async def edit(
    request: Request, task_id: UUID, opened: Opened, actor: CurrentActor, session: Session, expected: IfMatch
) -> Response:
    """Change a task: `title` and `tags` at any time, the rest while it is PENDING."""
    changes = (await read(request, TaskEdit)).model_dump(exclude_unset=True)
    edited = await editing.edit(session, task_id, changes, actor=actor, expected=expected)
    await session.commit()
    if edited.replaced is not None:
        await opened.queue.withdraw([edited.replaced])
        await opened.queue.deliver([edited.task])
    return task_response(edited.task, now=utc_now())


@router.delete("/{task_id}", status_code=204)
async def remove(task_id: UUID, actor: CurrentActor, session: Session, expected: IfMatch) -> Response:
    """Delete a finished task with its attempts, events, logs and files."""
    await editing.remove(session, task_id, actor=actor, expected=expected)
    await session.commit()
    return Response(status_code=204)


@router.post(
    "/{task_id}:clone", status_code=201, responses={201: {"model": TaskResource}}, openapi_extra=takes(CloneBody)
)
async def clone(
    request: Request, task_id: UUID, opened: Opened, actor: CurrentActor, session: Session, key: IdempotencyKey
) -> Response:
    """Create a task like this one, with what the body gives anew; it belongs to whoever asks, and starts at once."""
    body = await read(request, CloneBody, optional=True)
    now = utc_now()
    if key is not None:
        digest = idempotency.hash_of(f"clone task {task_id}", body.model_dump(mode="json", exclude_unset=True))
        stored = await idempotency.claim(session, key, actor=actor, request_hash=digest)
        if stored is not None:
            return _created(stored, headers=REPLAYED)
    new = _copy(await editing.template(session, task_id, actor=actor), body)
    kind = known_type(opened.registry, new.type)
    new = replace(new, payload=checked_payload(kind, new.payload))
    if body.delay_s is not None:
        new = replace(new, run_at=now + timedelta(seconds=body.delay_s))
    task = await tasks.create(session, new, actor=actor, max_pending=opened.settings.max_pending_tasks)
    answer = task_body(task, now=now)
    if key is not None:
        await idempotency.keep(session, key, actor=actor, task_id=task.id, response=to_json(answer))
    await session.commit()
    await opened.queue.deliver([task])
    opened.metrics.task_created(task.type)
    return _created(answer)


def _copy(new: NewTask, body: CloneBody) -> NewTask:
    return replace(new, **body.model_dump(exclude_unset=True, exclude={"delay_s"}))


def _created(answer: dict[str, Any], *, headers: dict[str, str] | None = None) -> Response:
    about = {"ETag": etag(answer["version"]), "Location": f"{PREFIX}/{answer['id']}"}
    return respond(answer, status=201, headers=about | (headers or {}))
