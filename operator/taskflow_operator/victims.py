"""Which pods go when a pool shrinks. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from taskflow_core.beacons import Beacon

UNKNOWN = 1_000_000  # what a worker that says nothing may hold


@dataclass(frozen=True, slots=True)
class PodView:
    """A pod of the pool as the operator last saw it; its name is its worker's host name.

    `crashed`: none of its containers runs (CrashLoopBackOff, ImagePullBackOff), so it holds no task. `deletion_cost` is
    its annotation, None without one.
    """

    name: str
    phase: str
    ready: bool
    terminating: bool
    created_at: datetime
    crashed: bool = False
    deletion_cost: int | None = None

    @property
    def live(self) -> bool:
        """Whether its ReplicaSet counts it."""
        return not self.terminating and self.phase not in {"Failed", "Succeeded"}

    @property
    def empty(self) -> bool:
        """Whether no container of it runs, so that nothing is lost with it."""
        return self.phase == "Pending" or self.crashed


def choose(
    live: Sequence[PodView], beacons: Mapping[str, Beacon], count: int, *, patient: bool, flagged: Collection[str]
) -> list[PodView]:
    """Return the pods to drain: those without a worker, then idle ones, the longest idle first.

    A pod whose worker says nothing counts as busy. Only a `patient` drain takes busy ones too, and waits for them;
    those it has `flagged` before come first.
    """

    def place(pod: PodView) -> tuple[bool, bool, int, float]:
        beacon = beacons.get(pod.name)
        busy = 0 if pod.empty else beacon.busy if beacon else UNKNOWN
        idle_since = beacon.idle_since if beacon and beacon.idle_since else 0.0
        return pod.name not in flagged, not pod.empty, busy, idle_since

    ranked = sorted(live, key=place)
    free = [pod for pod in ranked if patient or place(pod)[2] == 0]
    return free[: max(count, 0)]
