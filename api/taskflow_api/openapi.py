"""What /openapi.json says beyond the signatures: bodies that endpoints read themselves, and problem documents."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import models_json_schema

from taskflow_api.problems import MEDIA_TYPE
from taskflow_api.schemas.auth import Credentials, RefreshBody, Registration
from taskflow_api.schemas.problems import ProblemDocument
from taskflow_api.schemas.schedules import NewScheduleBody
from taskflow_api.schemas.tasks import BatchBody, BulkRetryBody, NewTaskBody

REF = "#/components/schemas/{model}"
MODELS: tuple[type[BaseModel], ...] = (
    Registration,
    Credentials,
    RefreshBody,
    NewTaskBody,
    BatchBody,
    BulkRetryBody,
    NewScheduleBody,
    ProblemDocument,
)
PROBLEMS: dict[int | str, dict[str, Any]] = {
    "4XX": {
        "description": "What was wrong with the request",
        "content": {MEDIA_TYPE: {"schema": {"$ref": REF.format(model=ProblemDocument.__name__)}}},
    }
}
SECURED: dict[str, Any] = {"security": [{"HTTPBearer": []}]}


def takes(model: type[BaseModel]) -> dict[str, Any]:
    """Return the part of an operation that describes its JSON body."""
    schema = {"$ref": REF.format(model=model.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def by_header(name: str, description: str) -> dict[str, Any]:
    """Return the part of an operation that describes an optional header."""
    header = {"name": name, "in": "header", "required": False, "description": description, "schema": {"type": "string"}}
    return {"parameters": [header]}


def by_path(name: str, kind: type) -> dict[str, Any]:
    """Return the part of an operation that describes a part of its path."""
    return {"parameters": [{"name": name, "in": "path", "required": True, "schema": TypeAdapter(kind).json_schema()}]}


def describe_api(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document, made once."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        _, definitions = models_json_schema([(model, "validation") for model in MODELS], ref_template=REF)
        document.setdefault("components", {}).setdefault("schemas", {}).update(definitions["$defs"])
        app.openapi_schema = document
    return app.openapi_schema
