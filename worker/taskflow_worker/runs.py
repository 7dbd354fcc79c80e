"""One attempt in flight: what its handler sees (the context), and how its end is read."""

import asyncio
import ctypes
import itertools
import random
import re
import threading
import time
import traceback
from collections.abc import MutableMapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

import structlog
from pydantic import BaseModel, ValidationError
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.typing import FilteringBoundLogger

from taskflow_core.clock import utc_now
from taskflow_core.database import Sessions
from taskflow_core.handlers import NonRetryable, Retry, Snooze, TaskCanceled, TaskTimeout, TaskType
from taskflow_core.leases import Claimed, LogLine
from taskflow_core.lifecycle import (
    Ending,
    canceled,
    completed,
    error_document,
    failed,
    released,
    retried_or_failed,
    snoozed,
)

MAX_RESULT_BYTES = 256 * 1024
MAX_LOG_LINES = 1000
MAX_LOG_CHARS = 4000
MAX_LOG_FIELDS = 50
MAX_LOG_TEXT = 1024 * 1024  # characters
HARD_GRACE_S = 10.0
TRUNCATED = f"truncated: an attempt keeps at most {MAX_LOG_LINES} lines and {MAX_LOG_TEXT} characters"
OWN_FIELDS = frozenset({"event", "task_id", "attempt"})
ESCAPED_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


class Interrupt(StrEnum):
    """Why a running attempt is told to stop."""

    TIMEOUT = "timeout"
    CANCEL = "cancel"
    LOST = "lost"
    SHUTDOWN = "shutdown"


class Run:
    """An attempt in flight; implements `taskflow_core.handlers.Context`."""

    def __init__(self, claimed: Claimed, type_: TaskType, sessions: Sessions) -> None:
        self.claimed = claimed
        self.type = type_
        self.logs: list[LogLine] = []
        self.started = time.monotonic()
        self.interrupted: Interrupt | None = None
        self.interrupted_at = 0.0
        self.transaction: AsyncSession | None = None
        self.unsent_progress: dict[str, Any] | None = None
        self.task: asyncio.Task[None] | None = None
        self._sessions = sessions
        self._thread_id: int | None = None
        self._lock = threading.Lock()
        self._log: FilteringBoundLogger | None = None
        self._numbers = itertools.count(1)  # its next() is atomic: a handler may log from many threads
        self._log_text = 0

    @property
    def task_id(self) -> UUID:
        """The task's id."""
        return self.claimed.id

    @property
    def owner_id(self) -> UUID:
        """The user who owns the task."""
        return self.claimed.owner_id

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        return self.claimed.attempt

    @property
    def idempotency_key(self) -> str:
        """A key stable over all attempts."""
        return str(self.claimed.id)

    @property
    def deadline(self) -> datetime:
        """When this attempt times out."""
        left_s = self.claimed.timeout_s - (time.monotonic() - self.started)
        return utc_now() + timedelta(seconds=left_s)

    @property
    def log(self) -> FilteringBoundLogger:
        """A logger whose lines are also kept with the task."""
        if self._log is None:
            config = structlog.get_config()
            self._log = structlog.wrap_logger(
                None,  # the configured one
                processors=[self._keep_line, *config["processors"]],
                wrapper_class=config["wrapper_class"],
            ).bind(task_id=str(self.task_id), attempt=self.attempt)
        return self._log

    def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """Keep the newest progress; the engine sends it about once a second."""
        self.unsent_progress = {"done": done, "total": total, "message": clean(message[:500])}

    def check_cancel(self) -> None:
        """Raise if the attempt was told to stop."""
        if self.interrupted is Interrupt.TIMEOUT:
            raise TaskTimeout(f"ran longer than {self.claimed.timeout_s} s")
        if self.interrupted is not None:
            raise TaskCanceled(f"asked to stop: {self.interrupted}")

    async def session(self) -> AsyncSession:
        """Return the session whose transaction also completes the task."""
        if not self.type.is_async:
            raise TypeError("ctx.session() is for async handlers; make the handler a coroutine function")
        if self.transaction is None:
            self.transaction = self._sessions()
        return self.transaction

    def new_session(self) -> AsyncSession:
        """Open a session of its own."""
        return self._sessions()

    def interrupt(self, reason: Interrupt) -> None:
        """Tell the handler to stop: cancel its coroutine, or raise in its thread at the next bytecode."""
        with self._lock:
            if self.interrupted is None:
                self.interrupted, self.interrupted_at = reason, time.monotonic()
            if self._thread_id is not None:
                error = TaskTimeout if reason is Interrupt.TIMEOUT else TaskCanceled
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._thread_id), ctypes.py_object(error))
        if self.type.is_async and self.task is not None:
            self.task.cancel()

    def overdue_s(self, now: float) -> float:
        """Return for how many seconds the attempt has outlived its timeout (negative: time left)."""
        return now - self.started - self.claimed.timeout_s

    def stuck(self, now: float) -> bool:
        """Whether the handler ignored an interrupt for so long that only the process's end helps."""
        return self.interrupted is not None and now - self.interrupted_at > HARD_GRACE_S

    async def execute(self, threads: ThreadPoolExecutor) -> Ending | None:
        """Run the handler to its end and say what becomes of the task; None: the lease is lost, drop it."""
        try:
            payload = self.type.payload.model_validate_json(self.claimed.payload)
        except ValidationError as error:
            return failed("invalid_payload", first_problem(error, "payload"))
        try:
            if self.type.is_async:
                returned = await self.type.handler(self, payload)
            else:
                loop = asyncio.get_running_loop()
                returned = await loop.run_in_executor(threads, self._call_in_thread, payload)
            return self._completed(returned)
        except BaseException as error:  # noqa: BLE001 - whatever a handler raises ends its attempt, never the worker
            return self._ending(error)

    def _call_in_thread(self, payload: BaseModel) -> Any:
        with self._lock:
            self._thread_id = threading.get_ident()
        try:
            return self.type.handler(self, payload)
        finally:
            with self._lock:
                self._thread_id = None
            _deliver_pending_interrupt()

    def _completed(self, returned: Any) -> Ending:
        if self.interrupted is Interrupt.LOST:
            raise TaskCanceled
        if self.type.result is None:
            return completed(None)
        try:
            model = returned if isinstance(returned, self.type.result) else self.type.result.model_validate(returned)
            text = model.model_dump_json()
        except ValidationError as error:
            return failed("invalid_result", first_problem(error, "result"))
        except ValueError as error:
            return failed("invalid_result", f"the result cannot be written as JSON: {clean(str(error))}")
        size = len(text.encode())
        if size > MAX_RESULT_BYTES:
            return failed("result_too_large", f"the result has {size} bytes, more than {MAX_RESULT_BYTES}")
        if ESCAPED_NUL.search(text):
            return failed("invalid_result", "the result holds U+0000, which PostgreSQL cannot store")
        return completed(text)

    def _ending(self, error: BaseException) -> Ending | None:
        stop = isinstance(error, asyncio.CancelledError | TaskCanceled | TaskTimeout)
        if stop and self.interrupted is not None:
            return self.ending_of_interrupt(self.interrupted)
        if isinstance(error, NonRetryable):
            return failed(error.code, clean(str(error)))
        if isinstance(error, Snooze):
            return snoozed(error.until if error.until.tzinfo else error.until.replace(tzinfo=UTC))
        after = error.after if isinstance(error, Retry) else None
        document = error_document(
            "retry" if isinstance(error, Retry) else "exception",
            clean(str(error)) or type(error).__name__,
            type=type(error).__qualname__,
            traceback=clean("".join(traceback.format_exception(error, limit=-20)))[-8000:],
        )
        return self._retry(document, after_s=None if after is None else after.total_seconds())

    def ending_of_interrupt(self, reason: Interrupt) -> Ending | None:
        """Return what becomes of the task when its handler stopped for that reason."""
        match reason:
            case Interrupt.LOST:
                return None
            case Interrupt.CANCEL:
                return canceled()
            case Interrupt.SHUTDOWN:
                return released()
            case Interrupt.TIMEOUT:
                text = f"ran longer than its timeout of {self.claimed.timeout_s} s"
                return self._retry(error_document("timeout", text), timed_out=True)

    def _retry(self, document: dict[str, Any], *, after_s: float | None = None, timed_out: bool = False) -> Ending:
        return retried_or_failed(
            document,
            attempt=self.claimed.attempt,
            max_attempts=self.claimed.max_attempts,
            spread=random.random(),  # noqa: S311 - jitter is no secret
            after_s=after_s,
            timed_out=timed_out,
        )

    def _keep_line(self, _logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if self._log_text <= MAX_LOG_TEXT and (number := next(self._numbers)) <= MAX_LOG_LINES:
            message = clean(str(event.get("event", ""))[:MAX_LOG_CHARS])
            given = [(key, value) for key, value in event.items() if key not in OWN_FIELDS][:MAX_LOG_FIELDS]
            fields = {clean(key[:MAX_LOG_CHARS]): clean(str(value)[:MAX_LOG_CHARS]) for key, value in given}
            self._log_text += len(message) + sum(len(key) + len(value) for key, value in fields.items())
            if number == MAX_LOG_LINES or self._log_text > MAX_LOG_TEXT:
                method, message, fields = "warning", TRUNCATED, {}
            self.logs.append(LogLine(number, time.monotonic(), method, message, fields))
        return event


def first_problem(error: ValidationError, root: str) -> str:
    """Return the first wrong field, as a path from `root`, and what is wrong with it."""
    first = error.errors(include_url=False)[0]
    return f"{'.'.join([root, *(str(part) for part in first['loc'])])}: {clean(first['msg'])}"


def clean(text: str) -> str:
    """Return the text as PostgreSQL can store it: no U+0000, no lone surrogates."""
    return text.encode("utf-8", "replace").decode().replace("\x00", "\N{REPLACEMENT CHARACTER}")


def _deliver_pending_interrupt() -> None:
    """Give the interpreter a place to raise an interrupt that came too late for the handler.

    It would else be raised inside the thread pool, which then never answers.
    """
    for _ in range(2):
        pass
