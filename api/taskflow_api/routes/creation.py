"""POST /tasks: the busiest route, whose requests share their statements; see docs/adr/0006."""

from datetime import datetime, timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from taskflow_api.body import read
from taskflow_api.dependencies import identify, resources_of
from taskflow_api.direct import Direct
from taskflow_api.idempotency import DESCRIPTION, REPLAYED, key_of
from taskflow_api.openapi import SECURED, by_header, takes
from taskflow_api.rendering import respond, task_body, to_json
from taskflow_api.schemas.tasks import NewTaskBody, TaskResource
from taskflow_core import tasks
from taskflow_core.clock import utc_now
from taskflow_core.handlers import Registry
from taskflow_core.idempotency import HEADER, hash_of
from taskflow_core.inserts import Keyed, TaskRow
from taskflow_core.tasks import NewTask
from taskflow_core.validation import checked_payload, known_type

PATH = "/api/v1/tasks"


async def create(request: Request) -> Response:
    """Create a task. It is stored when this answers 201, and runs at least once."""
    opened = resources_of(request)
    actor = await identify(request, opened)
    key = key_of(request)
    body = await read(request, NewTaskBody)
    now = utc_now()
    row = tasks.draft(_new_task(body, opened.registry, now=now), owner_id=actor.user_id)
    accepted = await opened.intake.take(row, None if key is None else _keyed(key, body, row, now=now))
    if accepted.replayed is not None:
        return _created(_kept(accepted.replayed), headers=REPLAYED)
    opened.metrics.task_created(row.type)
    return _created(task_body(row, now=now))


def _new_task(body: NewTaskBody, registry: Registry, *, now: datetime) -> NewTask:
    kind = known_type(registry, body.type)
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


def _keyed(key: str, body: NewTaskBody, row: TaskRow, *, now: datetime) -> Keyed:
    digest = hash_of("create task", body.model_dump(mode="json", exclude_unset=True))
    return Keyed(key, digest, to_json(task_body(row, now=now)))


def _kept(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer as it was given at first: PostgreSQL writes times in a way of its own."""
    return answer | {name: datetime.fromisoformat(answer[name]) for name in ("run_at", "updated_at")}


def _created(answer: dict[str, Any], *, headers: dict[str, str] | None = None) -> Response:
    about = {"ETag": f'"{answer["version"]}"', "Location": f"{PATH}/{answer['id']}"}
    return respond(answer, status=201, headers=about | (headers or {}))


ROUTES = (
    Direct(
        PATH,
        create,
        methods=["POST"],
        status_code=201,
        tags=["tasks"],
        responses={201: {"model": TaskResource}},
        openapi_extra=SECURED | takes(NewTaskBody) | by_header(HEADER, DESCRIPTION),
    ),
)
