"""Every HTTP error as a problem document (RFC 9457), and the one table that says which error is which status."""

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import orjson
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from taskflow_core.database import is_outage, is_timeout
from taskflow_core.errors import (
    BadJson,
    Conflict,
    DuplicateTask,
    Forbidden,
    IdempotencyConflict,
    InsufficientScope,
    Invalid,
    InvalidToken,
    NotFound,
    StaleVersion,
    TaskFlowError,
    TimedOut,
    TooLarge,
    TooMany,
    Unauthenticated,
    Unavailable,
    WrongMediaType,
)
from taskflow_core.validation import invalid

MEDIA_TYPE = "application/problem+json"
OUTAGE_RETRY_S = 2

STATUS: dict[type[TaskFlowError], int] = {
    BadJson: 400,
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    StaleVersion: 412,
    TooLarge: 413,
    WrongMediaType: 415,
    Invalid: 422,
    TooMany: 429,
    Unavailable: 503,
}


@dataclass(frozen=True, slots=True)
class Problem:
    """What an error says to the client; `more` are extension members."""

    status: int
    code: str
    detail: str
    headers: dict[str, str] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)

    def body(self, request_id: str) -> dict[str, Any]:
        """Return the problem document's members."""
        return {
            "type": f"urn:taskflow:problem:{self.code}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "request_id": request_id,
            **self.more,
        }

    def response(self, request_id: str) -> Response:
        """Return the problem document."""
        return Response(orjson.dumps(self.body(request_id)), self.status, headers=self.headers, media_type=MEDIA_TYPE)


def status_of(kind: type[TaskFlowError]) -> int | None:
    """Return the HTTP status of that error or of the nearest ancestor in the table."""
    return next((STATUS[ancestor] for ancestor in kind.__mro__ if ancestor in STATUS), None)


def describe(error: Exception) -> Problem:
    """Return what the client is told; of an unexpected error, nothing but that it happened."""
    if isinstance(error, RequestValidationError):
        return describe(invalid(error.errors(), skip=1))
    if isinstance(error, HTTPException):
        code = HTTPStatus(error.status_code).name.lower()
        return Problem(error.status_code, code, _sentence(error), dict(error.headers or {}))
    if isinstance(error, TaskFlowError) and (status := status_of(type(error))):
        return Problem(status, error.code, error.message, _headers(error), _more(error))
    if is_timeout(error):
        return describe(TimedOut("the database did not finish this within its time; ask for less, or try again soon"))
    if is_outage(error):
        return describe(Unavailable("the database does not answer; try again soon", retry_after_s=OUTAGE_RETRY_S))
    return Problem(500, "internal_error", "something went wrong on our side; the request_id finds it in our logs")


def _sentence(error: HTTPException) -> str:
    match error.status_code:
        case 404:
            return "there is nothing at this address"
        case 405:
            return "this address does not know that method; the Allow header names those it does"
        case _:
            return str(error.detail)


def _headers(error: TaskFlowError) -> dict[str, str]:
    match error:
        case InvalidToken():
            return {"WWW-Authenticate": 'Bearer realm="taskflow", error="invalid_token"'}
        case Unauthenticated():
            return {"WWW-Authenticate": 'Bearer realm="taskflow"'}
        case InsufficientScope(scope=scope):
            about = f'Bearer realm="taskflow", error="insufficient_scope", scope="{scope}"'
            return {"WWW-Authenticate": about}
        case TooMany() | Unavailable():
            return {"Retry-After": str(max(1, error.retry_after_s))}
        case IdempotencyConflict():
            return {"Retry-After": "1"}
        case _:
            return {}


def _more(error: TaskFlowError) -> dict[str, Any]:
    match error:
        case Invalid(fields=fields) if fields:
            return {"errors": [{"field": name, "message": message} for name, message in fields]}
        case DuplicateTask(task_id=task_id) if task_id:
            return {"task_id": task_id}
        case _:
            return {}
