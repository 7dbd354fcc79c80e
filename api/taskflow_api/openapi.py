"""What /openapi.json says beyond the signatures: bodies that endpoints read themselves, refusals, headers, examples."""

import re
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import models_json_schema

from taskflow_api import answers
from taskflow_api.examples import example_of
from taskflow_api.idempotency import VISIBLE_ASCII
from taskflow_api.operations import KEY_SCHEME, PREFIX, TOKEN_SCHEME, Operation, operations
from taskflow_api.schemas.documented import without_null
from taskflow_api.schemas.problems import ProblemDocument

REF = "#/components/schemas/{model}"
FASTAPIS_OWN = ("HTTPValidationError", "ValidationError")
TAGS = {
    "auth": "Accounts, logins and their sessions. Access tokens live for minutes, refresh tokens are used once.",
    "api-keys": "Keys for programs: they act as their owner, within their scopes.",
    "admin": "Accounts and what happened to them; for ADMIN.",
    "tasks": "Tasks: typed work that is accepted once and never lost.",
    "events": "What happens to tasks, as it happens.",
    "schedules": "Tasks that a cron expression creates.",
    "queues": "How queues stand, and who may take from them.",
    "webhooks": "Events sent to addresses of yours, signed.",
    "operations": "How the platform does: its workers, figures, health and metrics.",
}
SCHEMES = {
    TOKEN_SCHEME: {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "The access token that login and refresh answer.",
    },
    KEY_SCHEME: {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "tf_...",
        "description": "An API key with the scope that the operation needs.",
    },
}
TAG = r'(W/)?"[\x21\x23-\x7e]*"'
TAGS_PATTERN = rf"^(\*|{TAG}([ \t]*,[ \t]*{TAG}){{0,99}})$"
# What the headers that requests carry must look like, and what they may look like.
REQUEST_HEADERS = {
    "Idempotency-Key": (rf"^{VISIBLE_ASCII.pattern}$", "5f0c2c1e-2b7e-4a0d-9c55-024ac1200021"),
    "If-Match": (TAGS_PATTERN, '"7"'),
    "If-None-Match": (TAGS_PATTERN, '"7"'),
    "Last-Event-ID": (r"^[0-9]{1,18}$", "4211"),
}
SECURED: dict[str, Any] = {"security": [{"HTTPBearer": []}]}
# The models of bodies that endpoints read themselves, by name; `takes` fills it.
BODIES: dict[str, type[BaseModel]] = {ProblemDocument.__name__: ProblemDocument}


def takes(model: type[BaseModel], *, required: bool = True) -> dict[str, Any]:
    """Return the part of an operation that describes its JSON body.

    Raises:
        ValueError: another model has that name already.
    """
    if BODIES.setdefault(model.__name__, model) is not model:
        raise ValueError(f"two bodies are called {model.__name__}: {BODIES[model.__name__]} and {model}")
    schema = {"$ref": REF.format(model=model.__name__)}
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}}


def operation_id(route: APIRoute) -> str:
    """Return the name of an operation: the endpoint's, and of a bare verb also what it is done to (`cancel_task`)."""
    parts = [part for part in route.path.removeprefix(PREFIX).replace(":", "/:").split("/") if part]
    if not route.path.startswith(PREFIX) or parts[0] == "auth":
        return route.name
    resource = (parts[1] if parts[0] == "admin" else parts[0]).replace("-", "_")
    if "_" in route.name and not parts[-1].startswith(":"):
        return route.name
    one = "{" in route.path or route.name == "create"
    noun = resource.removesuffix("s") if one else resource
    return route.name if noun in route.name else f"{route.name}_{noun}"


def by_header(name: str, description: str) -> dict[str, Any]:
    """Return the description of an optional header."""
    return {"name": name, "in": "header", "required": False, "description": description, "schema": {"type": "string"}}


def by_path(name: str, kind: type) -> dict[str, Any]:
    """Return the description of a part of a path."""
    return {"name": name, "in": "path", "required": True, "schema": TypeAdapter(kind).json_schema()}


def described(*parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the part of an operation that describes its parameters."""
    return {"parameters": list(parameters)}


def describe_api(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document, made once."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            servers=[{"url": "/", "description": "Where this document comes from"}],
        )
        _add_schemas(document)
        for operation in operations(document):
            _complete(operation, document)
        used = {tag for operation in operations(document) for tag in operation.spec.get("tags", [])}
        document["tags"] = [{"name": tag, "description": TAGS[tag]} for tag in TAGS if tag in used]
        app.openapi_schema = document
    return app.openapi_schema


def _add_schemas(document: dict[str, Any]) -> None:
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in FASTAPIS_OWN:
        schemas.pop(name, None)
    _, definitions = models_json_schema([(model, "validation") for model in BODIES.values()], ref_template=REF)
    for name, definition in definitions["$defs"].items():
        if _shape(schemas.get(name, definition)) != _shape(definition):
            raise ValueError(f"two schemas are called {name}: rename one of the models")
        schemas[name] = definition
    components["schemas"] = dict(sorted(schemas.items()))
    components["securitySchemes"] = SCHEMES
    components["headers"] = answers.HEADERS
    components["responses"] = {}


def _shape(schema: dict[str, Any]) -> tuple[list[Any], list[str]]:
    """Return what two schemas of one model have in common, whether it is for input or output."""
    return schema.get("enum", []), sorted(schema.get("properties", {}))


def _complete(operation: Operation, document: dict[str, Any]) -> None:
    """Add what follows from the operation's shape: its summary, security, refusals, headers and examples."""
    schemas = document["components"]["schemas"]
    operation.spec["summary"] = re.split(r"[.;:]\s", operation.spec["description"] + " ")[0]
    operation.spec["security"] = operation.security()
    for parameter in operation.spec.get("parameters", []):
        without_null(parameter["schema"])
        if parameter["in"] == "header" and parameter["name"] in REQUEST_HEADERS:
            pattern, parameter["example"] = REQUEST_HEADERS[parameter["name"]]
            parameter["schema"] = {"type": "string", "pattern": pattern}
    answers.add_refusals(operation, document["components"]["responses"])
    answers.add_headers(operation, schemas)
    bodies = [operation.spec.get("requestBody", {}), *operation.spec["responses"].values()]
    for media_type, content in (item for body in bodies for item in body.get("content", {}).items()):
        if media_type == "application/json" and content.get("schema"):
            content.setdefault("example", example_of(content["schema"], schemas))
