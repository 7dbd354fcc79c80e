"""POST /tasks, the busiest route, whose requests share their statements (docs/adr/0006), and POST /tasks:batch."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from taskflow_api import waiting
from taskflow_api.body import read
from taskflow_api.dependencies import Resources, actor_of, resources_of
from taskflow_api.direct import Direct
from taskflow_api.idempotency import DESCRIPTION, REPLAYED, key_of
from taskflow_api.openapi import SECURED, by_header, described, takes
from taskflow_api.rendering import batch_body, respond, task_body, to_json
from taskflow_api.schemas.tasks import BatchBody, BatchResult, NewTaskBody, TaskResource
from taskflow_core import idempotency, tasks
from taskflow_core.clock import utc_now
from taskflow_core.errors import TaskFlowError
from taskflow_core.handlers import Registry
from taskflow_core.idempotency import HEADER, hash_of
from taskflow_core.inserts import Keyed, TaskRow
from taskflow_core.tasks import NewTask
from taskflow_core.validation import checked_payload, invalid, known_type

PATH = "/api/v1/tasks"
BATCH_PATH = f"{PATH}:batch"


async def create(request: Request) -> Response:
    """Create a task. It is stored when this answers 201, and runs at least once."""
    opened = resources_of(request)
    actor = await actor_of(request, opened)
    key = key_of(request)
    body = await read(request, NewTaskBody)
    now = utc_now()
    row = tasks.draft(_new_task(body, opened.registry, now=now), owner_id=actor.user_id)
    accepted = await opened.intake.take(row, None if key is None else _keyed(key, body, row, now=now))
    if accepted.replayed is not None:
        return _created(_kept(accepted.replayed), headers=REPLAYED)
    opened.metrics.task_created(row.type)
    waited = await waiting.until_final(opened, row.id, seconds=waiting.preferred_wait_s(request))
    ended = await waiting.body_now(opened, row.id, actor=actor) if waited else None
    return _created(ended or task_body(row, now=now), headers=waited)


async def create_batch(request: Request) -> Response:
    """Create up to 1,000 tasks by one statement; each item is made or refused for itself."""
    opened = resources_of(request)
    actor = await actor_of(request, opened)
    key = key_of(request)
    body = await read(request, BatchBody)
    news = _new_tasks(body.items, opened, now=utc_now())
    async with opened.sessions() as session:
        if key is not None:
            digest = idempotency.hash_of("create tasks", {"items": body.items})
            stored = await idempotency.claim(session, key, actor=actor, request_hash=digest)
            if stored is not None:
                return respond(stored, headers=REPLAYED)
        valid = [new for new in news if isinstance(new, NewTask)]
        made = await tasks.create_many(session, valid, actor=actor, open_tasks=opened.open_tasks)
        outcomes = iter(made)
        results = [next(outcomes) if isinstance(new, NewTask) else new for new in news]
        answer = batch_body(results, request_id=request.state.request_id, now=utc_now())
        if key is not None:
            await idempotency.keep(session, key, actor=actor, task_id=None, response=to_json(answer))
        await session.commit()
    rows = [row for row in results if isinstance(row, TaskRow)]
    await opened.queue.deliver(rows)
    for type_, made_of_it in Counter(row.type for row in rows).items():
        opened.metrics.task_created(type_, made_of_it)
    return respond(answer)


def _new_tasks(items: Sequence[Any], opened: Resources, *, now: datetime) -> list[NewTask | TaskFlowError]:
    """Return what each item asks for, or what is wrong with it."""
    news: list[NewTask | TaskFlowError] = []
    max_bytes = opened.settings.max_body_bytes
    for item in items:
        try:
            news.append(_new_task(NewTaskBody.model_validate(item), opened.registry, now=now, max_bytes=max_bytes))
        except ValidationError as error:
            news.append(invalid(error.errors(include_url=False, include_input=False)))
        except TaskFlowError as error:
            news.append(error)
    return news


def _new_task(body: NewTaskBody, registry: Registry, *, now: datetime, max_bytes: int | None = None) -> NewTask:
    kind = known_type(registry, body.type)
    return NewTask(
        type=kind.name,
        payload=checked_payload(kind, body.payload, max_bytes=max_bytes),
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


router = APIRouter(
    routes=[
        Direct(
            PATH,
            create,
            methods=["POST"],
            status_code=201,
            tags=["tasks"],
            responses={201: {"model": TaskResource}},
            openapi_extra=SECURED
            | takes(NewTaskBody)
            | described(by_header(HEADER, DESCRIPTION), by_header(waiting.HEADER, waiting.DESCRIPTION)),
        ),
        Direct(
            BATCH_PATH,
            create_batch,
            methods=["POST"],
            tags=["tasks"],
            responses={200: {"model": BatchResult}},
            openapi_extra=SECURED | takes(BatchBody) | described(by_header(HEADER, DESCRIPTION)),
        ),
    ]
)
