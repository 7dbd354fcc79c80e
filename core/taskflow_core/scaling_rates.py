"""How fast a pool may move: the windows and rates of the HPA v2, rule for rule. Pure.

Source: k8s.io/kubernetes v1.35.4, pkg/controller/podautoscaler/horizontal.go: stabilizeRecommendationWithBehaviors,
convertDesiredReplicasWithBehaviorRate, calculateScaleUpLimitWithScalingRules, calculateScaleDownLimitWithBehaviors.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from taskflow_core.scaling_policy import Behavior, RatePolicy, ScalingRules

MAX_EVENTS = 2000


@dataclass(frozen=True, slots=True)
class Recommendation:
    """A replica count that the demand asked for at a moment."""

    at: datetime
    replicas: int


@dataclass(frozen=True, slots=True)
class ScaleEvent:
    """A change of the replica count that was written; positive for up."""

    at: datetime
    change: int


def remember(
    past: Sequence[Recommendation], new: Recommendation, *, window_s: float, outlives: Callable[[int, int], bool]
) -> tuple[Recommendation, ...]:
    """Return what still counts within the window when only its extreme matters.

    An older value that the new one `outlives` can never be the extreme again: what is left is strictly monotone, so
    there are never more entries than different replica counts.
    """
    cutoff = new.at - timedelta(seconds=window_s)
    kept = [entry for entry in past if entry.at > cutoff and not outlives(new.replicas, entry.replicas)]
    return (*kept, new)


def stabilise(current: int, wanted: int, *, highs: Sequence[Recommendation], lows: Sequence[Recommendation]) -> int:
    """Return `current` moved no further up than every `lows`, no further down than every `highs` allows."""
    ceiling = min([wanted, *(entry.replicas for entry in lows)])
    floor = max([wanted, *(entry.replicas for entry in highs)])
    return min(max(current, ceiling), floor)


def limit_rate(current: int, wanted: int, *, behavior: Behavior, events: Sequence[ScaleEvent], now: datetime) -> int:
    """Return `wanted`, or how far towards it the rates allow to go now."""
    if wanted > current:
        return min(wanted, max(current, _up_limit(current, behavior.scale_up, events, now)))
    if wanted < current:
        return max(wanted, min(current, _down_limit(current, behavior.scale_down, events, now)))
    return wanted


def _up_limit(current: int, rules: ScalingRules, events: Sequence[ScaleEvent], now: datetime) -> int:
    if rules.select_policy == "Disabled":
        return current
    limits = []
    for policy in rules.policies:
        start = max(1, _at_start(current, policy, events, now))  # a percentage of nothing would never leave zero
        percent = math.ceil(start * (100 + policy.value) / 100)
        limits.append(start + policy.value if policy.type == "Pods" else percent)
    return min(limits) if rules.select_policy == "Min" else max(limits)


def _down_limit(current: int, rules: ScalingRules, events: Sequence[ScaleEvent], now: datetime) -> int:
    if rules.select_policy == "Disabled":
        return current
    limits = []
    for policy in rules.policies:
        start = _at_start(current, policy, events, now)
        percent = start * max(0, 100 - policy.value) // 100
        limits.append(start - policy.value if policy.type == "Pods" else percent)
    return max(limits) if rules.select_policy == "Min" else min(limits)


def _at_start(current: int, policy: RatePolicy, events: Sequence[ScaleEvent], now: datetime) -> int:
    """Return how many replicas there were when the policy's period began."""
    cutoff = now - timedelta(seconds=policy.period_seconds)
    return current - sum(event.change for event in events if event.at > cutoff)
