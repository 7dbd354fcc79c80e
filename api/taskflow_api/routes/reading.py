"""GET /tasks/{id}: what clients ask for again and again while they wait for a task; requests share their statements."""

from uuid import UUID

from fastapi import APIRouter
from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from taskflow_api import waiting
from taskflow_api.conditions import IF_NONE_MATCH, KNOWN, known_to, unchanged
from taskflow_api.dependencies import actor_of, resources_of
from taskflow_api.direct import Direct
from taskflow_api.openapi import SECURED, by_header, by_path, described
from taskflow_api.rendering import task_response
from taskflow_api.schemas.tasks import TaskResource
from taskflow_core.clock import utc_now
from taskflow_core.validation import invalid

ID = TypeAdapter(UUID)


async def get(request: Request) -> Response:
    """Return one task, or 304 if the client holds this version of it; with `Prefer: wait=N`, once it has finished."""
    opened = resources_of(request)
    actor = await actor_of(request, opened)
    known, task_id = known_to(request), _task_id(request)
    task = await opened.reading.get(task_id, actor=actor)
    waited = await waiting.until_final(opened, task_id, seconds=waiting.preferred_wait_s(request))
    if waited:
        task = await opened.reading.get(task_id, actor=actor)
    return unchanged(task.row_version, known) or task_response(task, now=utc_now(), headers=waited)


def _task_id(request: Request) -> UUID:
    try:
        return ID.validate_python(request.path_params["task_id"])
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_input=False), prefix=("task_id",)) from None


router = APIRouter(
    routes=[
        Direct(
            "/api/v1/tasks/{task_id}",
            get,
            methods=["GET"],
            tags=["tasks"],
            responses={200: {"model": TaskResource}},
            openapi_extra=SECURED
            | described(
                by_path("task_id", UUID),
                by_header(IF_NONE_MATCH, KNOWN),
                by_header(waiting.HEADER, waiting.DESCRIPTION),
            ),
        ),
    ]
)
