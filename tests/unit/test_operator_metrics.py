"""What the operator tells about clusters: as they are, and nothing of those that are gone."""

import math
from dataclasses import replace

from prometheus_client import REGISTRY

import expositions
from taskflow_core.scaling import Demand, Reason
from taskflow_operator import metrics
from taskflow_operator.scaler import PoolReport
from taskflow_operator.status import Status
from taskflow_operator.store import Place

PLACE = Place("team-b", "gone")
CLUSTER = {"cluster_namespace": "team-b", "cluster": "gone"}
POOL = CLUSTER | {"pool": "default"}


def value(name: str, labels: dict[str, str]) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


def series() -> int:
    """Return how many series there are about the cluster."""
    samples = [sample for family in REGISTRY.collect() for sample in family.samples]
    return sum(sample.labels.get("cluster") == PLACE.name for sample in samples)


def tell(report: PoolReport, status: Status) -> None:
    metrics.count_report(PLACE, "default", report)
    metrics.tell_conditions(PLACE, status)


def test_a_cluster_is_told_with_its_pools_and_conditions_until_it_is_gone() -> None:
    tell(expositions.report(), expositions.status(Ready="True", Degraded="False"))
    assert value("taskflow_operator_pool_replicas", POOL | {"what": "busy"}) == 1
    assert value("taskflow_operator_pool_waiting", POOL) == 3
    assert value("taskflow_operator_cluster_condition", CLUSTER | {"condition": "Ready"}) == 1
    assert value("taskflow_operator_cluster_condition", CLUSTER | {"condition": "Degraded"}) == 0
    metrics.forget_cluster(PLACE, ["default"])
    assert series() == 0


def test_a_queue_that_cannot_be_read_has_no_number_of_tasks() -> None:
    before = value("taskflow_operator_redis_read_errors_total", {}) or 0
    report = expositions.report()
    tell(replace(report, demand=Demand(1, 1, error="no answer")), expositions.status())
    waiting = value("taskflow_operator_pool_waiting", POOL)
    assert waiting is not None
    assert math.isnan(waiting)
    assert value("taskflow_operator_redis_read_errors_total", {}) == before + 1
    metrics.forget_cluster(PLACE, ["default"])


def test_every_reason_and_kind_has_a_series_before_it_first_happens() -> None:
    for reason in Reason:
        assert value("taskflow_operator_scaling_decisions_total", {"reason": reason}) is not None
    for kind in metrics.ERROR_KINDS:
        assert value("taskflow_operator_reconcile_errors_total", {"kind": kind}) is not None
