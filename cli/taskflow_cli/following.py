"""Follow tasks until they end: live by their events, or by looking with a growing wait, through short outages."""

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from taskflow_cli.failures import DeadlinePassed
from taskflow_client.errors import DeadlinePassed as StreamDeadlinePassed
from taskflow_client.errors import Problem, TaskFlowFailure, UnexpectedAnswer, Unreachable
from taskflow_client.models import LogLine, Task
from taskflow_client.sync import TaskFlow

FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 1.0
GROWTH = 1.4
OUTAGE_S = 30.0
LAST_LINES_S = 2.0
BUSY = frozenset({429, 502, 503, 504})


def follow(client: TaskFlow, task_ids: Sequence[str], *, timeout_s: float) -> Iterator[Task]:
    """Yield each task after each look at it until all have ended; an ended one is not asked for again.

    Raises:
        DeadlinePassed: `timeout_s` seconds went by first.
        Unreachable, Problem: the API never answered, was away for over 30 s, or does not show the task.
    """
    deadline = time.monotonic() + timeout_s
    wait_s, heard_at = FIRST_WAIT_S, -OUTAGE_S
    open_ids = list(task_ids)
    while True:
        try:
            for task in [client.tasks.get(task_id) for task_id in open_ids]:
                yield task
                if task.has_ended:
                    open_ids.remove(task.id)
            heard_at = time.monotonic()
        except (Unreachable, Problem) as error:
            if not _will_pass(error) or time.monotonic() - heard_at > OUTAGE_S:
                raise
        if not open_ids:
            return
        if time.monotonic() >= deadline:
            raise DeadlinePassed(f"{_count(open_ids)} not ended after {timeout_s:g} s", details=open_ids)
        time.sleep(min(wait_s * random.uniform(0.8, 1.0), max(0.0, deadline - time.monotonic())))  # noqa: S311 - jitter
        wait_s = min(LONGEST_WAIT_S, wait_s * GROWTH)


def follow_live(
    client: TaskFlow, task_id: str, *, timeout_s: float, print_line: Callable[[LogLine], None]
) -> Iterator[Task]:
    """Yield a task whenever its events tell of a change, and pass on what its handler logs. Raises what `follow` does.

    Where the API cannot stream, it is looked at again and again.
    """
    until = time.monotonic() + timeout_s
    task = client.tasks.get(task_id)
    yield task
    lines = threading.Thread(
        target=_pass_on_lines, args=(client, task_id, timeout_s, print_line), name="lines", daemon=True
    )
    lines.start()
    try:
        for event in client.tasks.events(task_id, timeout_s=timeout_s):
            if event.progress is None:
                task = client.tasks.get(task_id)
            else:
                task = task.model_copy(update={"progress": event.progress})
            yield task
    except StreamDeadlinePassed:
        pass
    except (Problem, Unreachable, UnexpectedAnswer):
        pass  # looking says what is the matter, or works
    if task.has_ended:
        lines.join(LAST_LINES_S)
    else:
        yield from follow(client, [task_id], timeout_s=max(0.0, until - time.monotonic()))


def _pass_on_lines(client: TaskFlow, task_id: str, timeout_s: float, print_line: Callable[[LogLine], None]) -> None:
    try:
        for line in client.tasks.logs(task_id, timeout_s=timeout_s):
            print_line(line)
    except TaskFlowFailure:
        return  # the task itself tells what is the matter


def _will_pass(error: Unreachable | Problem) -> bool:
    return isinstance(error, Unreachable) or error.status in BUSY


def _count(task_ids: Sequence[str]) -> str:
    return "the task has" if len(task_ids) == 1 else f"{len(task_ids)} tasks have"
