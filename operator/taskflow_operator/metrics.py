"""What the operator counts, in Prometheus' terms. Labels are clusters, pools and words of our own."""

from prometheus_client import Counter, Gauge, Histogram

from taskflow_operator.scaler import PoolReport
from taskflow_operator.store import Place

RECONCILE = Histogram(
    "taskflow_operator_reconcile_seconds",
    "How long a look at one cluster took.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
ERRORS = Counter("taskflow_operator_reconcile_errors", "Looks that failed, by kind.", ["kind"])
WRITES = Counter("taskflow_operator_writes", "What was written to the API server.", ["what"])
DECISIONS = Counter("taskflow_operator_scaling_decisions", "Decisions about pools, by reason.", ["reason"])
READ_ERRORS = Counter("taskflow_operator_redis_read_errors", "Reads of queues that failed.")
REPLICAS = Gauge("taskflow_operator_pool_replicas", "Pods of a pool.", ["namespace", "cluster", "pool", "what"])
CLUSTERS = Gauge("taskflow_operator_clusters", "Clusters that are looked after.")
LEADER = Gauge("taskflow_operator_leader", "1 while this process leads.")


def count_report(place: Place, pool: str, report: PoolReport) -> None:
    """Count what a pool's tick saw and decided."""
    DECISIONS.labels(report.decision.reason).inc()
    if report.demand.error is not None:
        READ_ERRORS.inc()
    REPLICAS.labels(*place, pool, "current").set(report.replicas)
    REPLICAS.labels(*place, pool, "desired").set(report.decision.desired)


def forget(place: Place, pools: list[str]) -> None:
    """Take away the series of a cluster that is gone."""
    for pool in pools:
        for what in ("current", "desired"):
            REPLICAS.remove(*place, pool, what)
