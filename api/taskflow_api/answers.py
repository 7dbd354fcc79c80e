"""What each operation may answer beside its success: problems with their codes, and headers."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from taskflow_api.operations import CLOSED_TO_KEYS, Operation
from taskflow_api.problems import MEDIA_TYPE, status_of
from taskflow_core import errors
from taskflow_core.errors import TaskFlowError

Rule = Callable[[Operation], bool]

PROBLEM_REF = {"$ref": "#/components/schemas/ProblemDocument"}
EXAMPLE_REQUEST_ID = "6f9d0f4c2b7e4a0d9c55024ac1200021"
SESSION_PATHS = ("/auth/login", "/auth/refresh", "/auth/logout")


def _always(operation: Operation) -> bool:
    return True


def _has_body(operation: Operation) -> bool:
    return operation.has_body


def _has_key(operation: Operation) -> bool:
    return operation.has("header", "Idempotency-Key")


def _touches_task(operation: Operation) -> bool:
    return operation.resource == "tasks" and operation.changes


def _starts_tasks(operation: Operation) -> bool:
    return operation.has_body and operation.resource in {"tasks", "schedules"}


def _streams(operation: Operation) -> bool:
    return operation.has("header", "Last-Event-ID")


# Where a status can be the answer at all.
STATUSES: dict[int, Rule] = {
    400: _has_body,
    401: lambda operation: operation.is_secured or operation.path.endswith(SESSION_PATHS),
    403: lambda operation: operation.is_secured,
    404: lambda operation: operation.has("path") or operation.has("query", "task"),
    408: _has_body,
    409: lambda operation: operation.changes and not operation.path.endswith(SESSION_PATHS),
    412: lambda operation: operation.has("header", "If-Match"),
    413: _has_body,
    415: _has_body,
    422: lambda operation: operation.has_body or any(map(operation.has, ("path", "query", "header"))),
    429: lambda operation: bool(operation.resource),
    500: _always,
    503: lambda operation: operation.path not in {"/health/live", "/metrics"},
}
# Where a code of such a status can be the answer; without a rule: wherever the status can.
CODES: dict[str, Rule] = {
    "already_registered": lambda operation: operation.path.endswith("/auth/register"),
    "bad_cursor": lambda operation: operation.has("query", "cursor"),
    "duplicate_task": _touches_task,
    "idempotency_conflict": _has_key,
    "idempotency_mismatch": _has_key,
    "illegal_transition": lambda operation: _touches_task(operation) and operation.has("path"),
    "insufficient_scope": lambda operation: operation.resource not in CLOSED_TO_KEYS,
    "last_admin": lambda operation: operation.resource == "admin",
    "not_configured": lambda operation: operation.resource == "webhooks",
    "no_stream_free": _streams,
    "too_many_streams": _streams,
    "unknown_type": _starts_tasks,
}
HEADERS: dict[str, dict[str, Any]] = {
    "ETag": {
        "description": "The version that is answered, for If-Match.",
        "schema": {"type": "string", "pattern": '^"[^"]+"$'},
    },
    "Idempotent-Replayed": {
        "description": "`true` when this is the stored answer to an earlier request of the same Idempotency-Key.",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "Location": {"description": "Where the new resource is.", "schema": {"type": "string", "format": "uri-reference"}},
    "Preference-Applied": {"description": "The wait that was granted (RFC 7240).", "schema": {"type": "string"}},
    "RateLimit": {
        "description": "What is left of the quota, and in how many seconds it is whole again.",
        "schema": {"type": "string", "pattern": r'^"requests";r=[0-9]+;t=[0-9]+$'},
    },
    "RateLimit-Policy": {
        "description": "The quota and its window in seconds.",
        "schema": {"type": "string", "pattern": r'^"requests";q=[0-9]+;w=[0-9]+$'},
    },
    "Retry-After": {"description": "In how many seconds to try again.", "schema": {"type": "integer", "minimum": 1}},
    "WWW-Authenticate": {"description": "How to prove who is asking (RFC 6750).", "schema": {"type": "string"}},
    "X-Request-ID": {"description": "Finds the request in the logs.", "schema": {"type": "string"}},
}
PROBLEM_HEADERS = {401: ("WWW-Authenticate",), 429: ("Retry-After",), 503: ("Retry-After",)}


def add_refusals(operation: Operation, shared: dict[str, Any]) -> None:
    """Add the problems that the operation may answer; equal ones share an entry of `shared`."""
    responses = operation.spec["responses"]
    for status in (status for status, may in STATUSES.items() if may(operation)):
        codes = [code for code in codes_of(status) if CODES.get(code, _always)(operation)]
        name = "_".join([str(status), *codes])
        shared.setdefault(name, _refusal(status, codes))
        responses[str(status)] = {"$ref": f"#/components/responses/{name}"}
    if operation.has("header", "If-None-Match"):
        responses["304"] = {"description": "It is still as the ETag says"}
    operation.spec["responses"] = dict(sorted(responses.items()))


def add_headers(operation: Operation, schemas: dict[str, Any]) -> None:
    """Add the headers of the operation's successful answers."""
    for status, response in operation.spec["responses"].items():
        if "$ref" not in response:
            names = _headers_of(operation, int(status), response, schemas)
            response["headers"] = {name: _header(name) for name in names} | response.get("headers", {})


def codes_of(status: int) -> list[str]:
    """Return the codes of the problems that are answered with a status."""
    if status == 500:
        return ["internal_error"]
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, TaskFlowError)]
    return [kind.code for kind in kinds if status_of(kind) == status] or [HTTPStatus(status).name.lower()]


def _refusal(status: int, codes: list[str]) -> dict[str, Any]:
    title = HTTPStatus(status).phrase
    example = {
        "type": f"urn:taskflow:problem:{codes[0]}",
        "title": title,
        "status": status,
        "detail": "one sentence on what was wrong",
        "code": codes[0],
        "request_id": EXAMPLE_REQUEST_ID,
    }
    schema = {"allOf": [PROBLEM_REF, {"properties": {"code": {"enum": codes}, "status": {"const": status}}}]}
    return {
        "description": f"{title}: {', '.join(codes)}",
        "headers": {name: _header(name) for name in (*PROBLEM_HEADERS.get(status, ()), "X-Request-ID")},
        "content": {MEDIA_TYPE: {"schema": schema, "example": example}},
    }


def _headers_of(operation: Operation, status: int, response: dict[str, Any], schemas: dict[str, Any]) -> list[str]:
    schema = response.get("content", {}).get("application/json", {}).get("schema", {})
    properties = schemas.get(schema.get("$ref", "").rpartition("/")[2], {}).get("properties", {})
    rules = {
        "ETag": status == 304 or "version" in properties,
        "Idempotent-Replayed": _has_key(operation),
        "Location": status == 201 and "id" in properties and operation.is_secured,
        "Preference-Applied": operation.has("header", "Prefer"),
        "RateLimit": operation.is_secured,
        "RateLimit-Policy": operation.is_secured,
        "X-Request-ID": True,
    }
    return [name for name, holds in rules.items() if holds]


def _header(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/headers/{name}"}
