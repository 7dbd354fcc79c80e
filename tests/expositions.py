"""What each process tells Prometheus, with every metric counted at least once."""

from collections.abc import Iterable
from uuid import uuid4

from prometheus_client import REGISTRY, CollectorRegistry, Metric

from taskflow_api.metrics import Metrics
from taskflow_core.clock import utc_now
from taskflow_core.firing import Outcome as FiringOutcome
from taskflow_core.leases import Claimed, Finished
from taskflow_core.lifecycle import completed
from taskflow_core.scaling import Decision, Demand, History, Reason
from taskflow_core.standing import QueueStanding, Standing
from taskflow_operator import metrics as operator_metrics
from taskflow_operator.scaler import Flag, PoolReport
from taskflow_operator.status import Condition, Status
from taskflow_operator.store import Place
from taskflow_worker.metrics import SchedulerMetrics, WebhookMetrics, WorkerMetrics
from taskflow_worker.standing import families

PLACE = Place("team-a", "demo")
STANDING = Standing(
    queues={"default": QueueStanding(["default"], 1, 2.0, False)},
    workers={"running": 1},
    webhooks={"working": 1},
    outbox_lag_s=0.0,
    dead_letters=0,
    webhooks_waiting=0,
    webhooks_lag_s=0.0,
)


def api(types: Iterable[str] = ("ECHO",)) -> CollectorRegistry:
    metrics = Metrics(types=types)
    metrics.request_finished(method="GET", route="/", status=200, seconds=0.1)
    metrics.refused("rate_limited")
    metrics.task_created("ECHO")
    return metrics.registry


def claimed(type_: str) -> Claimed:
    now = utc_now()
    return Claimed(uuid4(), uuid4(), type_, "default", "{}", 1, 3, 1, 300, now, now, None)


def worker(*ran: str, types: Iterable[str] = ("ECHO",)) -> CollectorRegistry:
    """Return what a worker tells that knows `types` and completed tasks of the types `ran`."""
    registry = CollectorRegistry()
    metrics = WorkerMetrics(slots=1, types=types, registry=registry)
    for type_ in ran:
        task = claimed(type_)
        metrics.claimed(task)
        metrics.ran(task, seconds=0.1)
        metrics.ended(Finished(task, completed(None)))
    return registry


def scheduler() -> CollectorRegistry:
    registry = CollectorRegistry()
    metrics = SchedulerMetrics(registry)
    metrics.deleted("tasks", 1)
    metrics.fired(FiringOutcome.FIRED)
    metrics.ran("enqueue_due", late_s=0.0, seconds=0.1)
    WebhookMetrics(registry)
    return registry


def report() -> PoolReport:
    """Return what a pool's tick reports: one busy pod, and three tasks that wait."""
    decision = Decision(1, 1, Reason.DEMAND, "", History(), active=True)
    flag = Flag(True, "Fine", "")
    return PoolReport(decision, Demand(1, 1, waiting=3), 1, 1, 0, 0, flag, flag, flag)


def status(**conditions: str) -> Status:
    about = {"reason": "Fine", "message": "", "lastTransitionTime": "2026-11-24T00:00:00Z", "observedGeneration": 1}
    return Status(
        conditions=[Condition.model_validate(about | {"type": kind, "status": is_}) for kind, is_ in conditions.items()]
    )


def operator() -> CollectorRegistry:
    """Return the operator's own registry, after it looked at one cluster with one pool."""
    operator_metrics.count_report(PLACE, "default", report())
    operator_metrics.tell_conditions(PLACE, status(Ready="True", Degraded="False", ScalingLimited="False"))
    operator_metrics.RECONCILE.observe(0.1)
    return REGISTRY


def told() -> dict[str, list[Metric]]:
    """Return the families of every component; of the operator's registry, which is the process's, only its own."""
    own = [family for family in operator().collect() if family.name.startswith("taskflow_operator_")]
    build = [family for family in api().collect() if family.name == "taskflow_build_info"]
    standing = list(families(STANDING, {"default": 1}, gathered_at=0.0))
    return {
        "api": list(api().collect()),
        "worker": list(worker("ECHO").collect()),
        "scheduler": [*scheduler().collect(), *standing],
        "operator": [*own, *build],
    }


def name_of(family: Metric) -> str:
    """Return the name that Prometheus stores, of a histogram without its endings."""
    return f"{family.name}_total" if family.type == "counter" else family.name


def labels_of(family: Metric) -> frozenset[str]:
    return frozenset(label for sample in family.samples for label in sample.labels if label != "le")
