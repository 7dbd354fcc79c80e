"""The state machine of a task and its backoff: pure, no clock, no IO.

PENDING -> RUNNING -> COMPLETED | FAILED | CANCELED | PENDING (retry, lost lease, release, snooze)
PENDING -> CANCELED;  FAILED -> PENDING (manual retry). COMPLETED and CANCELED never leave.
"""

from enum import StrEnum

from taskflow_core.errors import IllegalTransition

BACKOFF_BASE_S = 2.0
BACKOFF_CAP_S = 3600.0


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
