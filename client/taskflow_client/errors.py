"""What a call can end with instead of its result, one tree.

TaskFlowFailure
├── Unreachable            nothing answered, or not in time
├── UnexpectedAnswer       what answered does not speak like TaskFlow
├── DeadlinePassed         what was waited for did not happen in time
└── Problem                the API said no (RFC 9457): status, code, detail, fields, request_id
    ├── NotAuthenticated   401  log in again
    ├── NotAllowed         403
    ├── NotFound           404  absent, or another's
    ├── Conflict           409  the state of things does not allow it
    ├── StaleVersion       412  it was changed since it was read
    ├── Invalid            400, 413, 415, 422  the request itself; `fields` names what is wrong
    ├── TooMany            429  a quota or a rate; see retry_after_s
    └── Unavailable        5xx  come back later
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, NamedTuple


class FieldProblem(NamedTuple):
    """A field that is wrong: its dotted path, and what would be right."""

    field: str
    message: str


class TaskFlowFailure(Exception):
    """Root of everything that a call raises on purpose."""


class Unreachable(TaskFlowFailure):
    """Nothing answered at the address; `reason` says what happened on the way."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"cannot reach {url}: {reason}")
        self.url = url
        self.reason = reason


class UnexpectedAnswer(TaskFlowFailure):
    """What answered is not the TaskFlow that this client knows; `reason` names the first difference."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"{url} does not answer like TaskFlow: {reason}")
        self.url = url
        self.reason = reason


class DeadlinePassed(TaskFlowFailure):
    """What was waited for did not happen within the time that was given."""


class Problem(TaskFlowFailure):
    """A problem document. Switch on `code`; quote `request_id`; `document` holds every member."""

    def __init__(self, status: int, document: Mapping[str, Any], *, retry_after_s: float | None = None) -> None:
        self.status = status
        self.document = dict(document)
        self.code = str(document.get("code") or "")
        self.title = str(document.get("title") or _phrase(status)).rstrip(".")
        self.detail = str(document.get("detail") or "")
        self.request_id = str(document.get("request_id") or "")
        self.fields = tuple(_fields(document.get("errors")))
        self.retry_after_s = retry_after_s
        super().__init__(f"{self.title} ({status}{', ' + self.code if self.code else ''}): {self.detail}")


class NotAuthenticated(Problem):
    """No token was sent, or it does not hold."""


class NotAllowed(Problem):
    """The caller is known and may not do this."""


class NotFound(Problem):
    """There is no such thing, or it belongs to someone else."""


class Conflict(Problem):
    """The state of things does not allow the request."""


class StaleVersion(Problem):
    """The resource has changed since its ETag was read."""


class Invalid(Problem):
    """The request cannot be understood."""


class TooMany(Problem):
    """A quota or a rate is exhausted."""


class Unavailable(Problem):
    """The platform cannot answer now."""


KINDS: dict[int, type[Problem]] = {
    400: Invalid,
    401: NotAuthenticated,
    403: NotAllowed,
    404: NotFound,
    409: Conflict,
    412: StaleVersion,
    413: Invalid,
    415: Invalid,
    422: Invalid,
    429: TooMany,
}


def problem(status: int, document: Any, *, retry_after_s: float | None = None) -> Problem:
    """Return the error of a refused request; `document` is its body, whatever it is."""
    kind = KINDS.get(status, Unavailable if status >= 500 else Problem)
    return kind(status, document if isinstance(document, Mapping) else {}, retry_after_s=retry_after_s)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "the request failed"


def _fields(errors: Any) -> list[FieldProblem]:
    listed = errors if isinstance(errors, list) else []
    return [
        FieldProblem(str(error.get("field") or "request"), str(error.get("message") or "is wrong"))
        for error in listed
        if isinstance(error, Mapping)
    ]
