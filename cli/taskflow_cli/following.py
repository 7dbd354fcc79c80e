"""Follow tasks until they end: poll with a growing wait, up to a deadline, through short outages."""

import random
import time
from collections.abc import Iterator, Sequence
from typing import Protocol

from taskflow_cli.failures import DeadlinePassed, Refused, Unreachable
from taskflow_cli.wire import Task

FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 1.0
GROWTH = 1.4
OUTAGE_S = 30.0
BUSY = frozenset({429, 502, 503, 504})


class Reader(Protocol):
    """Who can be asked for a task."""

    def task(self, task_id: str) -> Task:
        """Return the task of that id."""


def follow(reader: Reader, task_ids: Sequence[str], *, timeout_s: float) -> Iterator[Task]:
    """Yield each task after each look at it until all have ended; an ended one is not asked for again.

    Raises:
        DeadlinePassed: `timeout_s` seconds went by first.
        Unreachable, Refused: the API never answered, was away for over 30 s, or does not show the task.
    """
    deadline = time.monotonic() + timeout_s
    wait_s, heard_at = FIRST_WAIT_S, -OUTAGE_S
    open_ids = list(task_ids)
    while True:
        try:
            for task in [reader.task(task_id) for task_id in open_ids]:
                yield task
                if task.has_ended:
                    open_ids.remove(task.id)
            heard_at = time.monotonic()
        except (Unreachable, Refused) as failure:
            if not _will_pass(failure) or time.monotonic() - heard_at > OUTAGE_S:
                raise
        if not open_ids:
            return
        if time.monotonic() >= deadline:
            raise DeadlinePassed(f"{_count(open_ids)} not ended after {timeout_s:g} s", details=open_ids)
        time.sleep(min(wait_s * random.uniform(0.8, 1.0), max(0.0, deadline - time.monotonic())))  # noqa: S311 - jitter
        wait_s = min(LONGEST_WAIT_S, wait_s * GROWTH)


def _will_pass(failure: Unreachable | Refused) -> bool:
    return isinstance(failure, Unreachable) or failure.status in BUSY


def _count(task_ids: Sequence[str]) -> str:
    return "the task has" if len(task_ids) == 1 else f"{len(task_ids)} tasks have"
