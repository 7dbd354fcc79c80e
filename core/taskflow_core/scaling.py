"""How many replicas a pool needs: one pure function of the policy, the demand and the pool's history.

    occupancy  R = ceil((running + waiting / tasksPerSlot) / slots)
    latency    R = ceil((running + waiting * run_s / time left) / slots), when occupancy would miss the SLO
    then       tolerance (down only), windows, rates, bounds, overrides, and zero only after a quiet time

R depends on the demand alone, never on replicas that are still starting, so that a constant demand has one answer. What
cannot be read is no demand: the pool keeps its size, or grows to the fallback's.
"""

import math
import operator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Self

from taskflow_core.scaling_policy import MAX_PERIOD_S, FallbackBehavior, ScalingPolicy
from taskflow_core.scaling_rates import (
    MAX_EVENTS,
    Recommendation,
    ScaleEvent,
    limit_rate,
    remember,
    stabilise,
)

GOOD_READS = 2  # after an outage, before its end is believed


class Reason(StrEnum):
    """Why a decision is what it is; also the reason of conditions, so it is spelled as Kubernetes does."""

    DEMAND = "Demand"
    LATENCY = "LatencySLO"
    TOLERANCE = "WithinTolerance"
    WINDOW = "StabilizationWindow"
    RATE = "RateLimit"
    MINIMUM = "AtMinimum"
    MAXIMUM = "AtMaximum"
    QUIET = "NotQuietLongEnough"
    PAUSED = "ScalingPaused"
    FORCED = "ForcedActive"
    SUSPENDED = "Suspended"
    READ_FAILED = "ReadFailed"
    FALLBACK = "Fallback"
    RECOVERING = "Recovering"
    VANISHED = "QueuesVanished"
    FIXED = "FixedReplicas"


@dataclass(frozen=True, slots=True)
class Demand:
    """What was read: `waiting` and `running` tasks, `oldest_s` the age of the oldest waiting one.

    `run_s` is the median run time, None while too few are known; `slots` are those of one replica; `draining` counts
    replicas that are on their way out; `run_id` names the Redis process. With `error`, only `replicas` is known.
    """

    replicas: int
    slots: int
    waiting: int = 0
    running: int = 0
    oldest_s: float = 0.0
    run_s: float | None = None
    draining: int = 0
    run_id: str = ""
    error: str | None = None

    @property
    def load(self) -> int:
        """Tasks that are not done."""
        return self.waiting + self.running


@dataclass(frozen=True, slots=True)
class Overrides:
    """What a person ordered for a time: no scaling in, none out, at least one replica, none at all."""

    pause_in: bool = False
    pause_out: bool = False
    force_active: bool = False
    suspend: bool = False


@dataclass(frozen=True, slots=True)
class History:
    """What earlier decisions leave behind, all of it bounded. Start with `seeded`."""

    highs: tuple[Recommendation, ...] = ()
    lows: tuple[Recommendation, ...] = ()
    events: tuple[ScaleEvent, ...] = ()
    errors: int = 0
    good_reads: int = 0
    run_id: str = ""
    load: int = 0
    quiet_since: datetime | None = None
    distrust_until: datetime | None = None

    @classmethod
    def seeded(cls, replicas: int, *, now: datetime) -> Self:
        """Return the history of a process that just took over: what it finds holds for one window."""
        found = (Recommendation(now, replicas),)
        return cls(highs=found, lows=found)

    def scaled(self, change: int, *, now: datetime) -> "History":
        """Return the history after the replica count was changed."""
        cutoff = now - timedelta(seconds=MAX_PERIOD_S)
        kept = [event for event in self.events if event.at > cutoff][-MAX_EVENTS + 1 :]
        return replace(self, events=(*kept, ScaleEvent(now, change)))


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do: `recommended` is what the demand asks for within the bounds, `desired` what may be done now.

    `active` says whether the queues can be trusted, `limited` which bound or rate holds the demand back. `history` is
    the argument of the next call.
    """

    recommended: int
    desired: int
    reason: Reason
    words: str
    history: History
    active: bool = True
    limited: Reason | None = None


def desired_replicas(
    policy: ScalingPolicy,
    demand: Demand,
    history: History,
    *,
    now: datetime,
    overrides: Overrides = Overrides(),
) -> Decision:
    """Return the replica count the demand asks for, with the reason in words."""
    if overrides.suspend:
        return Decision(0, 0, Reason.SUSPENDED, _words(demand, 0, "suspended"), history, active=False)
    if demand.error is not None:
        return _without_data(policy, demand, history, overrides)
    history, doubt = _believe(policy, demand, history, now)
    if doubt is not None:
        words = _words(demand, demand.replicas, DOUBTS[doubt])
        return Decision(demand.replicas, demand.replicas, doubt, words, history, active=False)
    return _decide(policy, demand, history, now, overrides)


DOUBTS = {
    Reason.RECOVERING: "the queues can be read again, waiting for a second good read",
    Reason.VANISHED: "Redis restarted and the queues are suddenly empty, not believed for one window",
}


def _without_data(policy: ScalingPolicy, demand: Demand, history: History, overrides: Overrides) -> Decision:
    errors = min(history.errors + 1, policy.fallback.failure_threshold)
    history = replace(history, errors=errors, good_reads=0, quiet_since=None)
    now_fallback = errors >= policy.fallback.failure_threshold
    desired = demand.replicas
    if now_fallback and policy.fallback.behavior is not FallbackBehavior.HOLD:
        desired = max(desired, min(policy.fallback.replicas or 0, policy.max_replicas))
    desired = _override(desired, demand.replicas, policy, overrides)[0]
    reason = Reason.FALLBACK if now_fallback else Reason.READ_FAILED
    words = _words(demand, desired, f"the queues cannot be read: {demand.error}")
    return Decision(desired, desired, reason, words, history, active=not now_fallback)


def _believe(policy: ScalingPolicy, demand: Demand, history: History, now: datetime) -> tuple[History, Reason | None]:
    """Take a good read in; the reason says why nothing may be decided from it yet."""
    window = timedelta(seconds=policy.behavior.scale_down.stabilization_window_seconds)
    restarted = history.run_id not in {"", demand.run_id}
    distrust = history.distrust_until
    if restarted and history.load > 0 and demand.load == 0:
        distrust = now + window
    doubted = distrust is not None and now < distrust and demand.load == 0
    out = history.errors >= policy.fallback.failure_threshold
    good = history.good_reads + 1 if out else 0
    recovering = out and good < GOOD_READS
    quiet = demand.load == 0 and demand.draining == 0
    history = replace(
        history,
        errors=history.errors if recovering else 0,
        good_reads=good if recovering else 0,
        run_id=demand.run_id,
        load=demand.load,
        quiet_since=(history.quiet_since or now) if quiet else None,
        distrust_until=distrust if doubted else None,
    )
    if doubted or recovering:
        return history, Reason.VANISHED if doubted else Reason.RECOVERING
    if out or distrust is not None:  # what is there counts as wanted for one window of good reads
        found = Recommendation(now, demand.replicas)
        history = replace(history, highs=(found,), lows=(found,), quiet_since=now if quiet else None)
    return history, None


def _decide(policy: ScalingPolicy, demand: Demand, history: History, now: datetime, overrides: Overrides) -> Decision:
    current, behavior = demand.replicas, policy.behavior
    raw, reason, why = _recommend(policy, demand)
    recommended = min(max(raw, policy.min_replicas), policy.max_replicas)
    wanted = current if _tolerable(policy, current, recommended) else recommended
    new = Recommendation(now, wanted)
    up_s, down_s = (rules.stabilization_window_seconds for rules in (behavior.scale_up, behavior.scale_down))
    highs = remember(history.highs, new, window_s=down_s, outlives=operator.ge)
    lows = remember(history.lows, new, window_s=up_s, outlives=operator.le)
    stable = stabilise(current, wanted, highs=highs, lows=lows)
    paced = stable if current == 0 else limit_rate(current, stable, behavior=behavior, events=history.events, now=now)
    bounded = min(max(paced, policy.min_replicas), policy.max_replicas)
    ordered, order = _override(bounded, current, policy, overrides)
    desired = max(ordered, 1) if current > 0 and not _quiet(policy, history, now) else ordered
    steps = (
        (Reason.MAXIMUM if raw > recommended else Reason.MINIMUM, raw, recommended),
        (Reason.TOLERANCE, recommended, wanted),
        (Reason.WINDOW, wanted, stable),
        (Reason.RATE, stable, paced),
        (Reason.MAXIMUM if paced > bounded else Reason.MINIMUM, paced, bounded),
        (order, bounded, ordered),
        (Reason.QUIET, ordered, desired),
    )
    held = [step for step, before, after in steps if before != after]
    why = why if not held else f"{why}; {HELD[held[-1]]}"
    return Decision(
        recommended,
        desired,
        held[-1] if held else reason,
        _words(demand, desired, why),
        replace(history, highs=highs, lows=lows),
        limited=next((step for step in reversed(held) if step in LIMITS), None),
    )


LIMITS = frozenset({Reason.MAXIMUM, Reason.RATE})
HELD = {
    Reason.MAXIMUM: "maxReplicas holds it down",
    Reason.MINIMUM: "minReplicas holds it up",
    Reason.TOLERANCE: "too small a difference to scale in",
    Reason.WINDOW: "the stabilisation window holds it",
    Reason.RATE: "the rates of behavior hold it",
    Reason.PAUSED: "scaling is paused in this direction",
    Reason.FORCED: "forced to be active",
    Reason.QUIET: "not quiet for long enough to go to zero",
}


def _recommend(policy: ScalingPolicy, demand: Demand) -> tuple[int, Reason, str]:
    """Return the replicas that the demand alone asks for, why, and that in words."""
    waiting, running, slots = demand.waiting, demand.running, demand.slots
    spare = policy.min_idle if demand.load > 0 or policy.min_replicas > 0 else 0
    occupancy = math.ceil((running + waiting / policy.tasks_per_slot) / slots)
    words = f"waiting {waiting}, running {running}"
    slo_s = policy.latency_slo_seconds
    if slo_s is None or demand.run_s is None or waiting == 0:
        return occupancy + spare, Reason.DEMAND, words
    work_s = waiting * demand.run_s
    late = demand.oldest_s > slo_s / 2
    if late or work_s / (occupancy * slots) > slo_s:
        left_s = max(slo_s - demand.oldest_s - policy.cold_start_seconds, 2 * policy.polling_interval_seconds)
        latency = math.ceil((running + work_s / left_s) / slots)
        if latency > occupancy:
            sign = ">" if demand.oldest_s > slo_s else "of"
            return latency + spare, Reason.LATENCY, f"oldest {demand.oldest_s:.0f}s {sign} SLO {slo_s}s, {words}"
    return occupancy + spare, Reason.DEMAND, words


def _tolerable(policy: ScalingPolicy, current: int, recommended: int) -> bool:
    """Whether a step down is too small to be worth it; the last waiting task always gets its replica."""
    return 0 < recommended < current and (current - recommended) * 100 <= policy.tolerance_percent * current


def _override(desired: int, current: int, policy: ScalingPolicy, overrides: Overrides) -> tuple[int, Reason]:
    if (overrides.pause_in and desired < current) or (overrides.pause_out and desired > current):
        return current, Reason.PAUSED
    if overrides.force_active and desired == 0:
        return min(1, policy.max_replicas), Reason.FORCED
    return desired, Reason.PAUSED


def _quiet(policy: ScalingPolicy, history: History, now: datetime) -> bool:
    since = history.quiet_since
    return since is not None and (now - since).total_seconds() >= policy.scale_to_zero_after_seconds


def _words(demand: Demand, desired: int, why: str) -> str:
    move = f"{demand.replicas} -> {desired}" if desired != demand.replicas else f"stays at {desired}"
    return f"{move}: {why}"
