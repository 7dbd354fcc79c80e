"""Lanes: the RQ lists of a queue, one for each band of priority. Pure.

A queue `q` has the lanes `q:high`, `q` and `q:low`. Positive priorities go to the first, negative ones to the last,
and so do the tasks of an owner who already has a crowd of unfinished ones: one owner's backlog then never stands in
front of another's few tasks. Workers pop the lanes in order, and now and then in a shuffled one, so that none starves.
"""

from collections.abc import Sequence

CROWD = 100  # unfinished tasks of one owner, after which the next ones go to the low lane


def lane_of(queue: str, priority: int, *, crowded: bool = False) -> str:
    """Return the lane of a task."""
    if priority > 0:
        return f"{queue}:high"
    return f"{queue}:low" if priority < 0 or crowded else queue


def lanes_of(queues: Sequence[str]) -> list[str]:
    """Return every lane of the queues, most urgent first: the queues in their order, in each its bands."""
    return [lane for queue in queues for lane in (f"{queue}:high", queue, f"{queue}:low")]


def queue_of(lane: str) -> str:
    """Return the queue of a lane."""
    return lane.partition(":")[0]
