"""/task-types: what can be run here, and what it asks for."""

from fastapi import APIRouter
from starlette.responses import Response

from taskflow_api.dependencies import CurrentActor, Opened
from taskflow_api.rendering import respond
from taskflow_api.schemas.tasks import TaskTypeList
from taskflow_core.handlers import TaskType

router = APIRouter(prefix="/api/v1/task-types", tags=["tasks"])


@router.get("", responses={200: {"model": TaskTypeList}})
async def list_task_types(opened: Opened, _actor: CurrentActor) -> Response:
    """Return the installed task types with the JSON Schemas of their payloads and results."""
    kinds = [opened.registry.get(name) for name in opened.registry.names()]
    return respond({"items": [_body(kind) for kind in kinds if kind is not None]})


def _body(kind: TaskType) -> dict[str, object]:
    return {
        "name": kind.name,
        "summary": kind.summary,
        "timeout_s": kind.timeout_s,
        "payload_schema": kind.payload.model_json_schema(),
        "result_schema": kind.result.model_json_schema(mode="serialization") if kind.result else None,
    }
