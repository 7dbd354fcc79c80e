"""What can go wrong on purpose, one tree.

TaskFlowError
├── Unauthenticated          who is asking is unknown
│   └── InvalidToken         a token is malformed, expired, revoked or of the wrong kind
├── Forbidden                known, but not allowed
│   └── InsufficientScope    the API key was not given this scope
├── NotFound                 absent, or another owner's
├── Conflict                 the state of things does not allow it
│   ├── IllegalTransition    a task cannot reach that status from where it is
│   ├── DuplicateTask        an unfinished task holds the same deduplication key
│   ├── AlreadyRegistered    the email address has an account
│   ├── LastAdmin            nobody would be left to manage accounts
│   └── IdempotencyConflict  the same Idempotency-Key is in flight
├── StaleVersion             a change was made for a version that is no longer the current one
├── BadJson                  the body is not JSON
├── WrongMediaType           the body is of another kind than the one that is read here
├── Invalid                  the request cannot be understood, each field named
│   ├── UnknownType          no task type of that name is installed
│   ├── BadCursor            a page cursor is not ours, or of another filter
│   └── IdempotencyMismatch  the Idempotency-Key was used with another request
├── TooLarge                 a payload or body is over its bound
├── TooMany                  a quota or a rate is exhausted
│   ├── RateLimited          the owner sends more requests than they may
│   └── TooManyStreams       the user has as many open streams as one may have
└── Unavailable              a dependency is away; come back later
    ├── TimedOut             the database had not done it within its time
    ├── NoStreamFree         the process has as many open streams as it can, or stops
    └── NotConfigured        the operator has not set this up
"""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple


class FieldProblem(NamedTuple):
    """One field that is wrong: where it is (dotted path) and what would be right."""

    field: str
    message: str


class TaskFlowError(Exception):
    """Root of every expected failure; `code` is the stable name that clients switch on."""

    code: ClassVar[str] = "error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Unauthenticated(TaskFlowError):
    """The caller did not prove who they are."""

    code = "unauthenticated"


class InvalidToken(Unauthenticated):
    """A token is malformed, expired, revoked or of the wrong kind."""

    code = "invalid_token"


class Forbidden(TaskFlowError):
    """The caller is known and may not do this."""

    code = "forbidden"


class InsufficientScope(Forbidden):
    """The API key was not given the scope that the request needs."""

    code = "insufficient_scope"

    def __init__(self, message: str, *, scope: str) -> None:
        super().__init__(message)
        self.scope = scope


class NotFound(TaskFlowError):
    """The thing does not exist, or belongs to someone else."""

    code = "not_found"


class Conflict(TaskFlowError):
    """The state of things does not allow the request."""

    code = "conflict"


class IllegalTransition(Conflict):
    """A task was asked to move to a status it cannot reach from where it is."""

    code = "illegal_transition"


class DuplicateTask(Conflict):
    """An unfinished task of this owner and type holds the same deduplication key."""

    code = "duplicate_task"

    def __init__(self, message: str, *, task_id: str) -> None:
        super().__init__(message)
        self.task_id = task_id


class AlreadyRegistered(Conflict):
    """The email address already has an account."""

    code = "already_registered"


class LastAdmin(Conflict):
    """The change would leave no ADMIN that can log in."""

    code = "last_admin"


class IdempotencyConflict(Conflict):
    """A request with the same Idempotency-Key is still being answered."""

    code = "idempotency_conflict"


class StaleVersion(TaskFlowError):
    """A change names versions (If-Match), and the thing has moved on since."""

    code = "stale_version"


class BadJson(TaskFlowError):
    """The body is not JSON (RFC 8259)."""

    code = "bad_json"


class WrongMediaType(TaskFlowError):
    """The body's Content-Type is not the one that is read here."""

    code = "unsupported_media_type"


class Invalid(TaskFlowError):
    """The request is well-formed JSON but its content is wrong; each field is named."""

    code = "invalid"

    def __init__(self, message: str, fields: Sequence[FieldProblem] = ()) -> None:
        super().__init__(message)
        self.fields = tuple(fields)


class UnknownType(Invalid):
    """No task type of that name is installed."""

    code = "unknown_type"


class BadCursor(Invalid):
    """A page cursor was not made here, was changed, or belongs to another filter."""

    code = "bad_cursor"


class IdempotencyMismatch(Invalid):
    """The Idempotency-Key was used before with another request."""

    code = "idempotency_mismatch"


class TooLarge(TaskFlowError):
    """A payload or body is over its bound."""

    code = "too_large"


class TooMany(TaskFlowError):
    """A quota or a rate is exhausted; `retry_after_s` says when to come back."""

    code = "too_many"

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RateLimited(TooMany):
    """The owner sends more requests than they may."""

    code = "rate_limited"


class Unavailable(TaskFlowError):
    """A dependency is away; nothing was changed."""

    code = "unavailable"

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TimedOut(Unavailable):
    """The database was at work, or waited for a lock, for longer than it may; nothing was changed."""

    code = "timed_out"


class TooManyStreams(TooMany):
    """The user has as many open streams as one may have."""

    code = "too_many_streams"


class NoStreamFree(Unavailable):
    """The process has as many open streams as it can, or it stops; another may have room."""

    code = "no_stream_free"


class NotConfigured(Unavailable):
    """What was asked for needs a setting that this platform does not have."""

    code = "not_configured"
