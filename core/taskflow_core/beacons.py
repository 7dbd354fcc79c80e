"""What workers and the operator tell each other in Redis: beacons, drain flags, run times. Keys and formats. Pure.

A worker lights its beacon once a second, under its host name, which is its pod's name; it goes out by itself. To drain
a worker the operator sets its flag, a token that expires, and rings its bell, a list that the worker pops before its
lanes and in the same command: no task is popped after the bell. The worker acknowledges with the token in its beacon.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

BEACON_KEY = "taskflow:beacon:"
DRAIN_KEY = "taskflow:drain:"
BELL_KEY = "taskflow:bell:"
RUNS_KEY = "taskflow:runs:"
OWNER_KEY = "taskflow:cluster"
BEACON_TTL_S = 15
DRAIN_TTL_S = 60
OWNER_TTL_S = 300
MAX_RUNS = 500
RUNS_TTL_S = 600


@dataclass(frozen=True, slots=True)
class Beacon:
    """A worker as it was a moment ago.

    `busy` counts what it holds, from the pop to the written end. `idle_since` is in seconds since 1970, None while it
    is busy. `paused` are the queues it knows to be paused. `drain` is the token of the flag that it obeys: it takes no
    task while that flag stands.
    """

    worker_id: str
    queues: Sequence[str]
    paused: Sequence[str]
    slots: int
    busy: int
    idle_since: float | None
    state: str
    drain: str | None

    def to_json(self) -> str:
        """Return it as it is kept in Redis."""
        return json.dumps(asdict(self), separators=(",", ":"))


def read_beacon(raw: bytes | str | None) -> Beacon | None:
    """Return what the worker says, or None when there is none, or none that can be read."""
    try:
        return None if raw is None else Beacon(**json.loads(raw))
    except (ValueError, TypeError):
        return None


def run_sample(*, at_s: float, seconds: float) -> str:
    """Return a run time as it is kept in Redis, with when it ended (seconds since 1970)."""
    return f"{at_s:.0f} {seconds:.6f}"


def fresh_runs(samples: Iterable[bytes], *, now_s: float) -> list[float]:
    """Return the run times in seconds that ended within the last ten minutes."""
    runs = []
    for sample in samples:
        try:
            at, seconds = map(float, sample.split())
        except ValueError:
            continue
        if now_s - at <= RUNS_TTL_S:
            runs.append(seconds)
    return runs
