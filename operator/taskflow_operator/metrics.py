"""What the operator counts, in Prometheus' terms. Labels are clusters, pools and words of our own.

A cluster's namespace is `cluster_namespace`: `namespace` is what Prometheus says of the operator's own pod.
"""

from collections.abc import Iterable, Sequence

from prometheus_client import REGISTRY, Counter, Gauge, Histogram

from taskflow_core.measures import tell_build
from taskflow_core.scaling import Reason
from taskflow_operator.scaler import PoolReport
from taskflow_operator.status import Status
from taskflow_operator.store import Place

ERROR_KINDS = ("api", "timeout", "bug", "scaling")
WHAT = ("apply", "delete", "scale", "status")
COUNTED = ("current", "desired", "busy", "idle", "draining")
UNKNOWN = float("nan")
CLUSTER_LABELS = ["cluster_namespace", "cluster"]


def _counter(name: str, about: str, label: str, values: Iterable[str]) -> Counter:
    """Return a counter whose series are there from the start: what begins at 1 shows no increase."""
    made = Counter(name, about, [label])
    for value in values:
        made.labels(value)
    return made


tell_build("operator", REGISTRY)
RECONCILE = Histogram(
    "taskflow_operator_reconcile_seconds",
    "How long a look at one cluster took.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
ERRORS = _counter("taskflow_operator_reconcile_errors", "Looks that failed, by kind.", "kind", ERROR_KINDS)
WRITES = _counter("taskflow_operator_writes", "What was written to the API server.", "what", WHAT)
DECISIONS = _counter("taskflow_operator_scaling_decisions", "Decisions about pools, by reason.", "reason", Reason)
READ_ERRORS = Counter("taskflow_operator_redis_read_errors", "Reads of queues that failed.")
REPLICAS = Gauge(
    "taskflow_operator_pool_replicas", "Pods of a pool, by what is counted.", [*CLUSTER_LABELS, "pool", "what"]
)
WAITING = Gauge("taskflow_operator_pool_waiting", "Tasks that wait for a pool.", [*CLUSTER_LABELS, "pool"])
SCALING = Gauge("taskflow_operator_pool_scaling_active", "1 while a pool can be scaled.", [*CLUSTER_LABELS, "pool"])
CONDITION = Gauge(
    "taskflow_operator_cluster_condition",
    "1 while a condition of a cluster is True, 0 while it is False or Unknown.",
    [*CLUSTER_LABELS, "condition"],
)
CLUSTERS = Gauge("taskflow_operator_clusters", "Clusters that are looked after.")
LEADER = Gauge("taskflow_operator_leader", "1 while this process leads.")


def count_report(place: Place, pool: str, report: PoolReport) -> None:
    """Count what a pool's tick saw and decided."""
    DECISIONS.labels(report.decision.reason).inc()
    if report.demand.error is not None:
        READ_ERRORS.inc()
    counts = (report.replicas, report.decision.desired, report.busy, report.idle, report.draining)
    for what, count in zip(COUNTED, counts, strict=True):
        REPLICAS.labels(*place, pool, what).set(count)
    WAITING.labels(*place, pool).set(report.demand.waiting if report.demand.error is None else UNKNOWN)
    SCALING.labels(*place, pool).set(report.scaling_active.status)


def tell_conditions(place: Place, status: Status) -> None:
    """Tell the conditions that a cluster's status has."""
    for condition in status.conditions:
        CONDITION.labels(*place, condition.type).set(condition.status == "True")


def forget(place: Place, pools: Sequence[str]) -> None:
    """Take away the series of pools that are gone."""
    for pool in pools:
        for what in COUNTED:
            REPLICAS.remove(*place, pool, what)
        WAITING.remove(*place, pool)
        SCALING.remove(*place, pool)


def forget_cluster(place: Place, pools: Sequence[str]) -> None:
    """Take away the series of a cluster that is gone, those of its pools included."""
    forget(place, pools)
    CONDITION.remove_by_labels({"cluster_namespace": place.namespace, "cluster": place.name})
