"""The state machine of a task and its backoff: pure, no clock, no IO.

PENDING -> RUNNING -> COMPLETED | FAILED | CANCELED | PENDING (retry, lost lease, release, snooze)
PENDING -> CANCELED;  FAILED -> PENDING (manual retry). COMPLETED and CANCELED never leave.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from taskflow_core.errors import IllegalTransition

BACKOFF_BASE_S = 2.0
BACKOFF_CAP_S = 3600.0
MAX_RETRY_AFTER_S = 30 * 86_400.0
MAX_ERROR_CHARS = 2000


class TaskStatus(StrEnum):
    """What a task is stored as."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"


TRANSITIONS: dict[TaskStatus, frozenset[TaskStatus]] = {
    TaskStatus.PENDING: frozenset({TaskStatus.RUNNING, TaskStatus.CANCELED, TaskStatus.FAILED}),
    TaskStatus.RUNNING: frozenset({TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELED, TaskStatus.PENDING}),
    TaskStatus.FAILED: frozenset({TaskStatus.PENDING}),
    TaskStatus.COMPLETED: frozenset(),
    TaskStatus.CANCELED: frozenset(),
}
FINAL = frozenset({TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELED})


def advance(current: TaskStatus, target: TaskStatus) -> TaskStatus:
    """Return `target` if a task may go there from `current`.

    Raises:
        IllegalTransition: it may not.
    """
    if target not in TRANSITIONS[current]:
        raise IllegalTransition(f"a task that is {current} cannot become {target}")
    return target


def backoff_s(attempt: int, *, spread: float, base_s: float = BACKOFF_BASE_S) -> float:
    """Return the wait in seconds before the attempt that follows `attempt` (counted from 1).

    min(3600, base * 2^(attempt-1)), scaled by `spread` in [0, 1] to between half and all of it ("equal jitter",
    Brooker, Exponential Backoff And Jitter, AWS Architecture Blog, 2015).
    """
    exponent = min(max(attempt, 1) - 1, 32)
    return float(min(BACKOFF_CAP_S, base_s * 2**exponent) * (0.5 + 0.5 * spread))


class Outcome(StrEnum):
    """How one attempt ended, as kept in its history."""

    COMPLETED = "completed"
    FAILED = "failed"
    RETRIED = "retried"
    TIMED_OUT = "timed_out"
    CANCELED = "canceled"
    RELEASED = "released"
    SNOOZED = "snoozed"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Ending:
    """What the end of an attempt does to its task: where it goes, when it runs again, what is kept.

    `run_at` is a fixed moment, `delay_s` one counted from the database's now; both only for PENDING. `refund` gives
    the attempt back. `result_json` is JSON text.
    """

    outcome: Outcome
    status: TaskStatus
    result_json: str | None = None
    error: dict[str, Any] | None = None
    run_at: datetime | None = None
    delay_s: float | None = None
    refund: bool = False


def completed(result_json: str | None) -> Ending:
    """Return the end of an attempt whose handler returned."""
    return Ending(Outcome.COMPLETED, TaskStatus.COMPLETED, result_json=result_json)


def failed(code: str, message: str, **details: Any) -> Ending:
    """Return the end of an attempt that no further one can mend."""
    return Ending(Outcome.FAILED, TaskStatus.FAILED, error=error_document(code, message, **details))


def canceled() -> Ending:
    """Return the end of an attempt that was asked to stop and did."""
    error = error_document("canceled", "canceled while it was running")
    return Ending(Outcome.CANCELED, TaskStatus.CANCELED, error=error)


def released() -> Ending:
    """Return the end of an attempt that the worker gave back because it stops; it does not count."""
    return Ending(Outcome.RELEASED, TaskStatus.PENDING, delay_s=0.0, refund=True)


def snoozed(until: datetime) -> Ending:
    """Return the end of an attempt that asked to run later; it does not count."""
    return Ending(Outcome.SNOOZED, TaskStatus.PENDING, run_at=until, refund=True)


def retried_or_failed(
    error: dict[str, Any],
    *,
    attempt: int,
    max_attempts: int,
    spread: float,
    after_s: float | None = None,
    timed_out: bool = False,
) -> Ending:
    """Return the end of an attempt that another one may mend: PENDING after a backoff while attempts are left.

    `after_s` replaces the backoff; `spread` in [0, 1] is the jitter's draw.
    """
    last = attempt >= max_attempts
    outcome = Outcome.TIMED_OUT if timed_out else (Outcome.FAILED if last else Outcome.RETRIED)
    if last:
        return Ending(outcome, TaskStatus.FAILED, error=error)
    delay_s = backoff_s(attempt, spread=spread) if after_s is None else min(max(after_s, 0.0), MAX_RETRY_AFTER_S)
    return Ending(outcome, TaskStatus.PENDING, error=error, delay_s=delay_s)


def error_document(code: str, message: str, **details: Any) -> dict[str, Any]:
    """Return what a task keeps as its error: a stable code, a bounded message, and details."""
    return {"code": code, "message": message[:MAX_ERROR_CHARS], **details}
