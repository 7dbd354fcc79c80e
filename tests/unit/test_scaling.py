"""The scaling function, rule by rule."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from taskflow_core.scaling import Decision, Demand, History, Overrides, Reason, desired_replicas
from taskflow_core.scaling_policy import ScalingPolicy

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
FREE: dict[str, Any] = {
    "scaleUp": {"stabilizationWindowSeconds": 0, "policies": [{"type": "Pods", "value": 1000, "periodSeconds": 15}]},
    "scaleDown": {"stabilizationWindowSeconds": 0, "policies": [{"type": "Pods", "value": 1000, "periodSeconds": 15}]},
}


def policy(**fields: Any) -> ScalingPolicy:
    """Return a policy without windows and rates, but for what is given."""
    return ScalingPolicy.model_validate({"minReplicas": 0, "maxReplicas": 100, "behavior": FREE, **fields})


def decide(
    rules: ScalingPolicy,
    history: History | None = None,
    *,
    at_s: float = 0,
    overrides: Overrides | None = None,
    **d: Any,
) -> Decision:
    demand = Demand(**{"slots": 4, "replicas": 3, **d})
    return desired_replicas(
        rules, demand, history or History(), now=NOW + timedelta(seconds=at_s), overrides=overrides or Overrides()
    )


@pytest.mark.parametrize(
    ("demand", "fields", "expected", "reason"),
    [
        pytest.param({"waiting": 1, "replicas": 0}, {}, 1, Reason.DEMAND, id="one task wakes an empty pool"),
        pytest.param({"waiting": 2001, "replicas": 0}, {}, 100, Reason.MAXIMUM, id="straight from none to all"),
        pytest.param(
            {"waiting": 20, "running": 0}, {}, 1, Reason.DEMAND, id="five waiting tasks a slot fill a replica"
        ),
        pytest.param({"waiting": 21, "running": 0}, {}, 2, Reason.DEMAND, id="one task over a full replica adds one"),
        pytest.param({"waiting": 0, "running": 5}, {}, 2, Reason.DEMAND, id="what runs keeps its slots"),
        pytest.param({"waiting": 1, "running": 8}, {}, 3, Reason.DEMAND, id="no free slot for the last waiting task"),
        pytest.param({"running": 4}, {"minIdle": 2}, 3, Reason.DEMAND, id="idle replicas come on top"),
        pytest.param({"replicas": 0}, {"minIdle": 2}, 0, Reason.DEMAND, id="no idle replicas while nothing happens"),
        pytest.param(
            {"replicas": 1}, {"minIdle": 2, "minReplicas": 1}, 2, Reason.DEMAND, id="idle ones beside a minimum"
        ),
        pytest.param({}, {"minReplicas": 2}, 2, Reason.MINIMUM, id="never below the minimum"),
        pytest.param({"replicas": 120}, {"minReplicas": 1}, 1, Reason.MINIMUM, id="above the maximum comes down"),
        pytest.param({"running": 72, "replicas": 20}, {}, 20, Reason.TOLERANCE, id="a tenth less is not worth a step"),
        pytest.param({"running": 68, "replicas": 20}, {}, 17, Reason.DEMAND, id="more than a tenth less is"),
        pytest.param({"running": 81, "replicas": 20}, {}, 21, Reason.DEMAND, id="no tolerance on the way up"),
        pytest.param({"replicas": 2}, {}, 1, Reason.QUIET, id="the last replica waits for a quiet time"),
    ],
)
def test_the_demand_decides(demand: dict[str, Any], fields: dict[str, Any], expected: int, reason: Reason) -> None:
    decision = decide(policy(**fields), **demand)
    assert (decision.desired, decision.reason) == (expected, reason), decision.words


@pytest.mark.parametrize(
    ("demand", "expected"),
    [
        pytest.param({"waiting": 40, "run_s": None}, 2, id="no run times, no term"),
        pytest.param({"waiting": 40, "run_s": 1.0}, 2, id="occupancy would do it in time"),
        pytest.param({"waiting": 40, "run_s": 10.0}, 7, id="400 s of work in 15 s"),
        pytest.param({"waiting": 40, "run_s": 1.0, "oldest_s": 16.0}, 2, id="late, but ten seconds are enough"),
        pytest.param({"waiting": 40, "run_s": 3.0, "oldest_s": 41.0}, 3, id="late: at least two polls are left"),
        pytest.param({"waiting": 0, "run_s": 10.0, "running": 4}, 1, id="nothing waits"),
    ],
)
def test_the_latency_term_comes_in_when_occupancy_would_miss_the_slo(demand: dict[str, Any], expected: int) -> None:
    assert decide(policy(latencySLOSeconds=30), **demand).desired == expected


def test_a_decision_says_why_in_words() -> None:
    decision = decide(policy(latencySLOSeconds=30), waiting=120, run_s=3.0, oldest_s=41.0)
    assert decision.words == "3 -> 9: oldest 41s > SLO 30s, waiting 120, running 0"
    assert decide(policy(), waiting=100_000).words == "3 -> 100: waiting 100000, running 0; maxReplicas holds it down"
    assert decide(policy(), waiting=60).words == "stays at 3: waiting 60, running 0"


def test_the_window_holds_what_was_wanted_within_it() -> None:
    rules = policy(behavior={"scaleDown": {**FREE["scaleDown"], "stabilizationWindowSeconds": 300}})
    high = decide(rules, waiting=0, running=12)
    held = decide(rules, high.history, at_s=299, running=4)
    assert (held.desired, held.reason) == (3, Reason.WINDOW)
    assert decide(rules, held.history, at_s=301, running=4).desired == 1


def test_an_upward_window_waits_for_the_least_that_was_wanted_within_it() -> None:
    rules = policy(behavior={"scaleUp": {**FREE["scaleUp"], "stabilizationWindowSeconds": 60}})
    history = History.seeded(3, now=NOW)
    held = decide(rules, history, at_s=30, running=40)
    assert (held.desired, held.reason) == (3, Reason.WINDOW)
    assert decide(rules, held.history, at_s=61, running=40).desired == 10


def test_a_new_leader_takes_nothing_away_for_one_window() -> None:
    rules = ScalingPolicy(min_replicas=0)
    decision = decide(rules, History.seeded(3, now=NOW), at_s=299)
    assert (decision.desired, decision.reason) == (3, Reason.WINDOW)
    assert decide(rules, decision.history, at_s=301).desired == 1


def test_the_first_step_from_zero_ignores_the_rates() -> None:
    assert decide(ScalingPolicy(min_replicas=0), replicas=0, running=0, waiting=200).desired == 10


def test_zero_comes_after_a_quiet_time_on_a_fresh_read() -> None:
    rules = policy(scaleToZeroAfterSeconds=60)
    busy = decide(rules, running=1, replicas=1)
    quiet = decide(rules, busy.history, at_s=10, replicas=1)
    assert quiet.desired == 1
    assert decide(rules, quiet.history, at_s=69, replicas=1).reason == Reason.QUIET
    unread = decide(rules, quiet.history, at_s=69, replicas=1, error="timeout")
    assert decide(rules, unread.history, at_s=71, replicas=1).desired == 1
    assert decide(rules, quiet.history, at_s=71, replicas=1, draining=1).desired == 1
    assert decide(rules, quiet.history, at_s=71, replicas=1).desired == 0


@pytest.mark.parametrize(
    ("behavior", "expected"),
    [
        ({"behavior": "Hold"}, 3),
        ({"behavior": "Static", "replicas": 5}, 5),
        ({"behavior": "Static", "replicas": 1}, 3),
        ({"behavior": "AtLeast", "replicas": 5}, 5),
        ({"behavior": "AtLeast", "replicas": 200}, 100),
    ],
)
def test_after_too_many_failed_reads_the_fallback_holds_or_grows(behavior: dict[str, Any], expected: int) -> None:
    rules, history = policy(fallback=behavior), History()
    for _ in range(2):
        decision = decide(rules, history, error="timeout")
        assert (decision.desired, decision.active, decision.reason) == (3, True, Reason.READ_FAILED)
        history = decision.history
    decision = decide(rules, history, error="timeout")
    assert (decision.desired, decision.active, decision.reason) == (expected, False, Reason.FALLBACK)


def test_the_fallback_lifts_an_empty_pool_too() -> None:
    rules = policy(fallback={"failureThreshold": 1, "behavior": "AtLeast", "replicas": 2})
    assert decide(rules, replicas=0, error="timeout").desired == 2


def test_after_an_outage_two_good_reads_come_first_and_then_nothing_goes_for_one_window() -> None:
    rules = ScalingPolicy.model_validate({"minReplicas": 0, "fallback": {"failureThreshold": 1}})
    history = decide(rules, decide(rules, running=9).history, error="timeout").history
    first = decide(rules, history, at_s=1000, running=1)
    assert (first.desired, first.active, first.reason) == (3, False, Reason.RECOVERING)
    second = decide(rules, first.history, at_s=1005, running=1)
    assert (second.desired, second.active) == (3, True)
    assert decide(rules, second.history, at_s=1304, running=1).desired == 3
    assert decide(rules, second.history, at_s=1306, running=1).desired == 1


def test_one_failed_read_is_forgotten_by_a_good_one() -> None:
    history = decide(policy(), error="timeout").history
    assert decide(policy(), history, running=40).desired == 10


def test_queues_that_vanish_with_a_restart_of_redis_are_not_believed() -> None:
    rules = ScalingPolicy(min_replicas=0)
    history = decide(rules, run_id="a", waiting=50).history
    emptied = decide(rules, history, at_s=10, run_id="b")
    assert (emptied.desired, emptied.active, emptied.reason) == (3, False, Reason.VANISHED)
    later = decide(rules, emptied.history, at_s=309, run_id="b")
    assert (later.desired, later.active) == (3, False)
    believed = decide(rules, later.history, at_s=311, run_id="b")
    assert (believed.desired, believed.active) == (3, True)
    assert decide(rules, believed.history, at_s=612, run_id="b").desired == 1


def test_queues_that_are_full_again_after_a_restart_are_believed_at_once() -> None:
    rules = ScalingPolicy(min_replicas=0)
    history = decide(rules, run_id="a", waiting=50).history
    emptied = decide(rules, history, at_s=10, run_id="b")
    assert decide(rules, emptied.history, at_s=15, run_id="b", waiting=100).desired == 5


def test_a_restart_of_redis_that_loses_nothing_is_no_reason_to_doubt() -> None:
    rules = policy()
    history = decide(rules, run_id="a").history
    assert decide(rules, history, at_s=10, run_id="b").active


@pytest.mark.parametrize(
    ("overrides", "demand", "expected"),
    [
        (Overrides(pause_in=True), {"running": 1}, 3),
        (Overrides(pause_in=True), {"running": 20}, 5),
        (Overrides(pause_out=True), {"running": 20}, 3),
        (Overrides(pause_out=True), {"running": 4}, 1),
        (Overrides(force_active=True), {"replicas": 0}, 1),
        (Overrides(suspend=True), {"running": 20}, 0),
        (Overrides(suspend=True), {"error": "timeout"}, 0),
        (Overrides(pause_out=True), {"error": "timeout"}, 3),
    ],
)
def test_a_persons_orders_win(overrides: Overrides, demand: dict[str, Any], expected: int) -> None:
    rules = policy(fallback={"failureThreshold": 1, "behavior": "AtLeast", "replicas": 9})
    assert decide(rules, overrides=overrides, **demand).desired == expected


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"minReplicas": 5, "maxReplicas": 4}, "minReplicas 5 is more than maxReplicas 4"),
        ({"minIdle": 5, "maxReplicas": 4}, "minIdle 5 is more than maxReplicas 4"),
        ({"fallback": {"behavior": "Static"}}, "fallback.replicas is missing: Static needs it"),
        ({"maxReplica": 4}, "maxReplica"),
        ({"pollingIntervalSeconds": 0}, "pollingIntervalSeconds"),
        ({"behavior": {"scaleUp": {"stabilizationWindowSeconds": 0, "policies": []}}}, "behavior.scaleUp.policies"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused_by_name(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as refused:
        ScalingPolicy.model_validate(fields)
    assert words in str(refused.value)
