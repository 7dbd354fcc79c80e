"""Windows and rates: what the HPA v2's documentation and source say, number for number."""

import operator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from taskflow_core.scaling_policy import Behavior
from taskflow_core.scaling_rates import Recommendation, ScaleEvent, limit_rate, remember, stabilise

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def rules(*policies: tuple[str, int, int], select: str = "Max") -> dict[str, Any]:
    steps = [{"type": kind, "value": value, "periodSeconds": period} for kind, value, period in policies]
    return {"stabilizationWindowSeconds": 0, "selectPolicy": select, "policies": steps}


def behavior(direction: str, *policies: tuple[str, int, int], select: str = "Max") -> Behavior:
    return Behavior.model_validate({direction: rules(*policies, select=select)})


def path(start: int, wanted: int, limits: Behavior, *, every_s: int, steps: int) -> list[int]:
    """Return the replica counts of a pool that goes from `start` to `wanted` under the rates."""
    replicas, events, seen = start, list[ScaleEvent](), [start]
    for step in range(steps):
        now = NOW + timedelta(seconds=every_s * step)
        allowed = limit_rate(replicas, wanted, behavior=limits, events=events, now=now)
        if allowed != replicas:
            events.append(ScaleEvent(now, allowed - replicas))
        replicas = allowed
        seen.append(replicas)
    return seen


@pytest.mark.parametrize(
    ("start", "wanted", "limits", "every_s", "expected"),
    [
        pytest.param(
            1, 1000, behavior("scaleUp", ("Percent", 900, 60)), 60, [1, 10, 100, 1000], id="KEP-853: fast"
        ),
        pytest.param(1, 10, behavior("scaleUp", ("Pods", 1, 600)), 600, [1, 2, 3, 4], id="KEP-853: very gradually"),
        pytest.param(
            80, 0, behavior("scaleDown", ("Pods", 4, 60), ("Percent", 10, 60)), 60, [80, 72, 64, 57], id="docs: 80 pods"
        ),
        pytest.param(
            40, 0, behavior("scaleDown", ("Pods", 4, 60), ("Percent", 10, 60)), 60, [40, 36, 32, 28], id="docs: 4 pods"
        ),
        pytest.param(
            80, 0, behavior("scaleDown", ("Pods", 5, 60), ("Percent", 10, 60), select="Min"), 60, [80, 75, 70, 65],
            id="docs: at most 5 pods",
        ),
        pytest.param(1, 50, Behavior(), 15, [1, 5, 10, 20, 40, 50], id="default: 4 pods or a doubling each 15 s"),
        pytest.param(1, 50, Behavior(), 5, [1, 5, 5, 5, 10, 10, 10, 20], id="changes count for a period"),
        pytest.param(9, 0, Behavior(), 60, [9, 4, 2, 0], id="ours: half, or two, a minute"),
        pytest.param(3, 9, behavior("scaleUp", ("Pods", 4, 60), select="Disabled"), 60, [3, 3], id="never up"),
        pytest.param(9, 3, behavior("scaleDown", ("Pods", 4, 60), select="Disabled"), 60, [9, 9], id="never down"),
        pytest.param(5, 5, Behavior(), 60, [5, 5], id="there already"),
    ],
)  # fmt: skip
def test_rates_are_the_hpas(start: int, wanted: int, limits: Behavior, every_s: int, expected: list[int]) -> None:
    assert path(start, wanted, limits, every_s=every_s, steps=len(expected) - 1) == expected


def test_a_change_the_other_way_in_the_period_gives_room_back() -> None:
    events = [ScaleEvent(NOW - timedelta(seconds=10), -4)]
    limits = behavior("scaleUp", ("Pods", 2, 15))
    assert limit_rate(6, 20, behavior=limits, events=events, now=NOW) == 12


@pytest.mark.parametrize(
    ("current", "wanted", "lows", "highs", "expected"),
    [
        (3, 9, [], [], 9),
        (3, 9, [5], [], 5),
        (3, 9, [2], [], 3),
        (9, 3, [], [7, 5], 7),
        (9, 3, [], [12], 9),
        (9, 3, [], [], 3),
    ],
)
def test_windows_are_the_hpas(current: int, wanted: int, lows: list[int], highs: list[int], expected: int) -> None:
    def at_noon(values: list[int]) -> list[Recommendation]:
        return [Recommendation(NOW, value) for value in values]

    assert stabilise(current, wanted, highs=at_noon(highs), lows=at_noon(lows)) == expected


def test_a_window_remembers_only_what_can_still_be_its_maximum() -> None:
    highs: tuple[Recommendation, ...] = ()
    for second, replicas in enumerate([5, 9, 3, 3, 4, 1]):
        new = Recommendation(NOW + timedelta(seconds=second), replicas)
        highs = remember(highs, new, window_s=4, outlives=operator.ge)
    assert [entry.replicas for entry in highs] == [4, 1]
