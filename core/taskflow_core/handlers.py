"""The handler contract: what a task type is, what its function receives and may raise.

A task type is one function with a typed payload and a typed result, named by an entry point of the group
`taskflow.task_types`. The API reads the payload model from it to validate requests, the worker runs it:

    @task_type("RESIZE")
    async def resize(ctx: Context, payload: ResizePayload) -> ResizeResult: ...
"""

import inspect
import sys
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol, get_type_hints
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.typing import FilteringBoundLogger

ENTRY_POINT_GROUP = "taskflow.task_types"
MAX_TIMEOUT_S = 86_400


class BadEntryPoint(Exception):
    """An installed package names a task type that cannot be used; a process must not start without it."""


class Retry(Exception):
    """Raised by a handler: try again, after `after` if given, else after the usual backoff. Burns an attempt."""

    def __init__(self, message: str = "the handler asked for a retry", *, after: timedelta | None = None) -> None:
        super().__init__(message)
        self.after = after


class NonRetryable(Exception):
    """Raised by a handler: another attempt cannot help; the task becomes FAILED with this `code`."""

    def __init__(self, message: str, *, code: str = "non_retryable") -> None:
        super().__init__(message)
        self.code = code


class Snooze(Exception):
    """Raised by a handler: not now, run me again at `until` (time zone aware). Burns no attempt."""

    def __init__(self, until: datetime) -> None:
        super().__init__(f"snoozed until {until.isoformat()}")
        self.until = until


class TaskCanceled(Exception):
    """Raised inside a handler by `check_cancel` once its task was asked to stop."""


class TaskTimeout(Exception):
    """Raised inside a handler when its attempt ran longer than `timeout_s`."""


class Context(Protocol):
    """What a handler knows of its attempt and may do with it."""

    @property
    def task_id(self) -> UUID:
        """The task's id, stable over all attempts."""

    @property
    def owner_id(self) -> UUID:
        """The user who owns the task."""

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""

    @property
    def idempotency_key(self) -> str:
        """A key stable over all attempts, for services that deduplicate by one."""

    @property
    def deadline(self) -> datetime:
        """When this attempt times out (UTC)."""

    @property
    def log(self) -> FilteringBoundLogger:
        """A logger bound to the task; each line is also kept with the task (bounded)."""

    def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """Report progress; cheap, thread-safe, sent with the next lease renewal or sooner."""

    def check_cancel(self) -> None:
        """Raise TaskCanceled if the task was asked to stop. Call it in long loops.

        Raises:
            TaskCanceled: the task was asked to stop.
            TaskTimeout: the deadline has passed.
        """

    async def session(self) -> AsyncSession:
        """Return the session whose transaction also completes the task (async handlers only).

        What is written through it commits together with COMPLETED, or not at all: exactly once. Do not commit
        it. Calling it again returns the same session.
        """

    def new_session(self) -> AsyncSession:
        """Open a session of its own, for reads or for writes that must survive a failed attempt.

        The handler commits and closes it: `async with ctx.new_session() as session: ...`.
        """


Handler = Callable[[Context, Any], Any] | Callable[[Context, Any], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class TaskType:
    """A type of task: its name, the models of its payload and result, and the function that runs it."""

    name: str
    payload: type[BaseModel]
    result: type[BaseModel] | None
    handler: Handler
    is_async: bool
    timeout_s: int
    max_running: int | None
    summary: str


def task_type(name: str, *, timeout_s: int = 300, max_running: int | None = None) -> Callable[[Handler], TaskType]:
    """Make a task type of a function `(ctx: Context, payload: Model) -> Model | None`, sync or async.

    `name` is upper case, digits and underscores, at most 64 characters; `timeout_s` is the default bound of one
    attempt in seconds, at most a day. Raises TypeError when the annotations do not name the models.
    """
    if not (name.isascii() and name.replace("_", "").isalnum() and name.upper() == name and len(name) <= 64):
        raise TypeError(f"task type {name!r}: use upper case letters, digits and underscores, at most 64 characters")
    if not 1 <= timeout_s <= MAX_TIMEOUT_S:
        raise TypeError(f"task type {name}: timeout_s must lie between 1 and {MAX_TIMEOUT_S}, not {timeout_s}")

    def wrap(handler: Handler) -> TaskType:
        hints = get_type_hints(handler)
        result = hints.pop("return", None)
        parameters = list(inspect.signature(handler).parameters.values())
        payload = hints.get(parameters[1].name) if _are_two_positional(parameters) else None
        if not (isinstance(payload, type) and issubclass(payload, BaseModel)):
            raise TypeError(
                f"task type {name}: the function must take two parameters (ctx, payload), both positional and the "
                "second annotated with a pydantic model"
            )
        if result is type(None):
            result = None
        if result is not None and not (isinstance(result, type) and issubclass(result, BaseModel)):
            raise TypeError(f"task type {name}: the return annotation must be a pydantic model or None")
        summary = (inspect.getdoc(handler) or "").partition("\n")[0]
        return TaskType(
            name, payload, result, handler, inspect.iscoroutinefunction(handler), timeout_s, max_running, summary
        )

    return wrap


def _are_two_positional(parameters: list[inspect.Parameter]) -> bool:
    positional = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    return len(parameters) == 2 and all(parameter.kind in positional for parameter in parameters)


class Registry:
    """The task types of this process by name, loaded once from the installed packages' entry points."""

    def __init__(self, types: dict[str, TaskType]) -> None:
        self._types = types

    @classmethod
    def load(cls) -> "Registry":
        """Load every installed task type.

        Raises:
            BadEntryPoint: one cannot be imported, is not a task type, or is there twice; names it and its package.
        """
        types: dict[str, TaskType] = {}
        for entry in entry_points(group=ENTRY_POINT_GROUP):
            if entry.name in types:
                raise BadEntryPoint(f"{_described(entry)}: another package has that task type")
            types[entry.name] = _loaded(entry)
        return cls(types)

    @classmethod
    def load_or_exit(cls) -> "Registry":
        """Load every installed task type, or print what is wrong to standard error and leave with status 2."""
        try:
            return cls.load()
        except BadEntryPoint as error:
            sys.stderr.write(f"taskflow: {error}\n")
            raise SystemExit(2) from None

    def get(self, name: str) -> TaskType | None:
        """Return the type of that name, or None."""
        return self._types.get(name)

    def names(self) -> list[str]:
        """Return the names of all types, sorted."""
        return sorted(self._types)


def _loaded(entry: EntryPoint) -> TaskType:
    try:
        loaded = entry.load()
    except (Exception, SystemExit) as error:  # another package's code may raise anything while it is imported
        where = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
        line = f" ({where[-1].filename}, line {where[-1].lineno})" if len(where) > 1 else ""
        raise BadEntryPoint(
            f"{_described(entry)} cannot be loaded: {type(error).__name__}: {error}{line}; mend or remove that package"
        ) from error
    if not isinstance(loaded, TaskType) or loaded.name != entry.name:
        raise BadEntryPoint(f"{_described(entry)} is not a task type of that name")
    return loaded


def _described(entry: EntryPoint) -> str:
    package = entry.dist.name if entry.dist else "an unknown package"
    return f"entry point {entry.name} = {entry.value} of {package}"
