"""Deadlines, and how often to look at something that may take long."""

import random
import time

from taskflow_client.errors import DeadlinePassed

FIRST_LOOK_S = 0.1
LONGEST_LOOK_S = 2.0
GROWTH = 1.5
LONG_POLL_S = 25


class Deadline:
    """A moment in so many seconds; None for never."""

    def __init__(self, timeout_s: float | None) -> None:
        self._timeout_s = timeout_s
        self._until = float("inf") if timeout_s is None else time.monotonic() + timeout_s
        self._pause_s = FIRST_LOOK_S

    @property
    def left_s(self) -> float:
        """Return how many seconds are left, at least a little more than none."""
        return max(0.1, self._until - time.monotonic())

    @property
    def poll_s(self) -> int:
        """Return for how many seconds the server may be asked to wait."""
        return int(min(LONG_POLL_S, self.left_s))

    def limit(self, pause_s: float) -> float:
        """Return the pause, or what is left if that is shorter."""
        return min(pause_s, self.left_s)

    def check(self) -> None:
        """Raise DeadlinePassed when no time is left."""
        if time.monotonic() >= self._until:
            raise DeadlinePassed(f"it has not happened within {self._timeout_s:g} s")

    def pause_s(self) -> float:
        """Return how long to wait before the next look: longer each time, up to a bound, never beyond the deadline."""
        pause_s = self._pause_s * random.uniform(0.8, 1.0)  # noqa: S311 - jitter, not a secret
        self._pause_s = min(LONGEST_LOOK_S, self._pause_s * GROWTH)
        return self.limit(pause_s)
