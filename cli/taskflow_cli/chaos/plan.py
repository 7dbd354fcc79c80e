"""Which faults come, in which order, how far apart: decided by the seed alone. Pure.

Every round brings each kind once, shuffled, so that a short run sees most of them and a long one all of them often.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

WORKERS = ("worker-1", "worker-2")
SCHEDULERS = ("scheduler-1", "scheduler-2")
GAP_S = (0.4, 1.6)


class Kind(StrEnum):
    """What is done to a part."""

    KILLED = "killed"
    FROZEN = "frozen"
    STOPPED = "told to stop"
    EMPTIED = "emptied"
    RESTARTED = "restarted"
    CRASHED = "crashed"
    CUT = "cut off"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: `gap_s` seconds after the one before, for `hold_s` seconds; `share` of the connections are cut."""

    kind: Kind
    target: str
    gap_s: float
    hold_s: float = 0.0
    share: float = 0.0

    def __str__(self) -> str:
        """Return it in words."""
        if self.kind is Kind.FROZEN:
            return f"{self.target} is frozen for {self.hold_s:.1f} s"
        if self.kind is Kind.CUT:
            return f"{self.share:.0%} of the connections to {self.target} are cut off"
        return f"{self.target} is {self.kind}"


# Kind, parts to choose from, and for how many seconds. A worker frozen for longer than its lease wakes up as a zombie;
# Valkey frozen for over five seconds makes workers take their tasks from the table.
DECK: tuple[tuple[Kind, tuple[str, ...], tuple[float, float]], ...] = (
    (Kind.KILLED, WORKERS, (0, 0)),
    (Kind.FROZEN, WORKERS, (2.5, 6)),
    (Kind.STOPPED, WORKERS, (0, 0)),
    (Kind.KILLED, SCHEDULERS, (0, 0)),
    (Kind.FROZEN, SCHEDULERS, (1, 5)),
    (Kind.KILLED, ("api",), (0, 0)),
    (Kind.FROZEN, ("api",), (0.5, 2)),
    (Kind.KILLED, ("valkey",), (0, 0)),
    (Kind.FROZEN, ("valkey",), (1, 8)),
    (Kind.EMPTIED, ("valkey",), (0, 0)),
    (Kind.RESTARTED, ("postgres",), (0, 0)),
    (Kind.CRASHED, ("postgres",), (0, 0)),
    (Kind.CUT, ("postgres",), (0, 0)),
)


def plan(seed: int) -> Iterator[Fault]:
    """Yield the faults of that seed, without end."""
    chance = random.Random(seed)  # noqa: S311 - to be repeatable is its point
    while True:
        for kind, targets, (shortest, longest) in chance.sample(DECK, len(DECK)):
            yield Fault(
                kind,
                chance.choice(targets),
                gap_s=chance.uniform(*GAP_S),
                hold_s=chance.uniform(shortest, longest),
                share=chance.uniform(0.2, 1.0) if kind is Kind.CUT else 0.0,
            )
