"""What holds of the scaling function for every policy and every demand, on a simulated clock."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from taskflow_core.scaling import Demand, History, Overrides, desired_replicas
from taskflow_core.scaling_policy import ScalingPolicy

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
counts = st.integers(0, 2000) | st.integers(0, 30)
seconds = st.floats(0, 10_000)
steps = st.lists(
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(["Pods", "Percent"]),
            "value": st.integers(1, 200),
            "periodSeconds": st.integers(1, 1800),
        }
    ),
    min_size=1,
    max_size=3,
)


def directions(windows: st.SearchStrategy[int]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {
            "stabilizationWindowSeconds": windows,
            "selectPolicy": st.sampled_from(["Max", "Min", "Disabled"]),
            "policies": steps,
        }
    )


@st.composite
def policies(draw: st.DrawFn, *, free: bool = False) -> ScalingPolicy:
    """Draw a policy; a `free` one has no windows, and rates that nothing meets."""
    most = draw(st.integers(1, 60))
    all_at_once = [{"type": "Pods", "value": 1000, "periodSeconds": 1}]
    unlimited = {"stabilizationWindowSeconds": 0, "policies": all_at_once}
    fields: dict[str, Any] = {
        "maxReplicas": most,
        "minReplicas": draw(st.integers(0, most)),
        "minIdle": draw(st.integers(0, most)),
        "tasksPerSlot": draw(st.integers(1, 20)),
        "latencySLOSeconds": draw(st.none() | st.integers(1, 600)),
        "coldStartSeconds": draw(st.integers(0, 120)),
        "tolerancePercent": draw(st.integers(0, 100)),
        "scaleToZeroAfterSeconds": draw(st.integers(0, 600)),
        "fallback": {
            "failureThreshold": draw(st.integers(1, 4)),
            "behavior": draw(st.sampled_from(["Hold", "Static", "AtLeast"])),
            "replicas": draw(st.integers(0, 60)),
        },
        "behavior": {
            "scaleUp": unlimited if free else draw(directions(st.integers(0, 120))),
            "scaleDown": unlimited if free else draw(directions(st.integers(0, 900))),
        },
    }
    return ScalingPolicy.model_validate(fields)


demands = st.fixed_dictionaries(
    {
        "slots": st.integers(1, 16),
        "waiting": counts,
        "running": counts,
        "oldest_s": seconds,
        "run_s": st.none() | seconds,
        "draining": st.integers(0, 3),
        "run_id": st.sampled_from(["a", "b"]),
    }
)
failures = st.fixed_dictionaries({"slots": st.integers(1, 16), "error": st.just("timeout")})
walks = st.lists(st.tuples(st.integers(1, 120), demands | failures), min_size=1, max_size=30)


@given(policies(free=True), demands, st.integers(0, 60))
def test_a_constant_demand_is_answered_in_one_step(policy: ScalingPolicy, demand: dict[str, Any], start: int) -> None:
    assume(demand["waiting"] + demand["running"] > 0)
    first = desired_replicas(policy, Demand(replicas=start, **demand), History(), now=NOW)
    history, replicas = first.history, first.desired
    for second in (5, 10, 1000):
        moment = NOW + timedelta(seconds=second)
        again = desired_replicas(policy, Demand(replicas=replicas, **demand), history, now=moment)
        assert again.desired == replicas
        history = again.history


@given(policies(), demands, st.integers(0, 60), st.integers(0, 60))
def test_the_recommendation_depends_on_the_demand_not_on_what_is_already_starting(
    policy: ScalingPolicy, demand: dict[str, Any], one: int, other: int
) -> None:
    recommended = {
        desired_replicas(policy, Demand(replicas=replicas, **demand), History(), now=NOW).recommended
        for replicas in (one, other)
    }
    assert len(recommended) == 1


@given(policies(), st.integers(0, 60), walks)
def test_nothing_goes_down_within_the_window_of_an_up(
    policy: ScalingPolicy, start: int, walk: list[tuple[int, dict[str, Any]]]
) -> None:
    start = min(max(start, policy.min_replicas), policy.max_replicas)
    window = timedelta(seconds=policy.behavior.scale_down.stabilization_window_seconds)
    now, replicas, history = NOW, start, History.seeded(start, now=NOW)
    up: datetime | None = None
    for wait_s, demand in walk:
        now += timedelta(seconds=wait_s)
        decision = desired_replicas(policy, Demand(replicas=replicas, **demand), history, now=now)
        history, change = decision.history, decision.desired - replicas
        if change:
            history = history.scaled(change, now=now)
        if change > 0 and decision.active:
            up = now
        assert not (change < 0 and up is not None and now - up < window), decision.words
        replicas = decision.desired


@given(policies(), st.integers(0, 90), walks)
def test_the_answer_is_within_the_bounds(
    policy: ScalingPolicy, start: int, walk: list[tuple[int, dict[str, Any]]]
) -> None:
    now, replicas, history = NOW, start, History.seeded(start, now=NOW)
    for wait_s, demand in walk:
        now += timedelta(seconds=wait_s)
        decision = desired_replicas(policy, Demand(replicas=replicas, **demand), history, now=now)
        history = decision.history
        if "error" not in demand and decision.active:
            assert 0 <= policy.min_replicas <= decision.recommended <= policy.max_replicas
            assert policy.min_replicas <= decision.desired <= policy.max_replicas
            replicas = decision.desired
        assert len(history.highs) <= policy.max_replicas + 2
        assert len(history.lows) <= policy.max_replicas + 2


@given(policies(), st.integers(0, 90), walks, st.booleans())
def test_a_read_that_fails_never_lowers_the_count(
    policy: ScalingPolicy, start: int, walk: list[tuple[int, dict[str, Any]]], pause_out: bool
) -> None:
    now, history = NOW, History.seeded(start, now=NOW)
    for wait_s, demand in walk:
        now += timedelta(seconds=wait_s)
        decision = desired_replicas(
            policy, Demand(replicas=start, **demand), history, now=now, overrides=Overrides(pause_out=pause_out)
        )
        history = decision.history
        if "error" in demand or not decision.active:
            assert decision.desired >= start
