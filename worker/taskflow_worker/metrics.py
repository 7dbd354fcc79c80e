"""What workers and schedulers count, in Prometheus' terms. Labels are bounded: installed types and words of our own."""

from collections.abc import Callable, Iterable

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from sqlalchemy.ext.asyncio import AsyncEngine

from taskflow_core.firing import Outcome as FiringOutcome
from taskflow_core.leases import Claimed, Finished
from taskflow_core.lifecycle import FINAL, Outcome
from taskflow_core.measures import Known, tell_build
from taskflow_core.pool_metrics import PoolMetrics

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
JOB_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class WorkerMetrics:
    """The metrics of one worker process, which knows `types`; made once for a registry."""

    def __init__(self, *, slots: int, types: Iterable[str], registry: CollectorRegistry = REGISTRY) -> None:
        tell_build("worker", registry)
        names = list(types)
        attempts = Counter("taskflow_attempts", "Attempts that ended, by how.", ["type", "outcome"], registry=registry)
        finished = Counter(
            "taskflow_tasks_finished", "Tasks that workers finished.", ["type", "status"], registry=registry
        )
        ran = Histogram(
            "taskflow_attempt_run_seconds", "How long handlers ran.", ["type"], buckets=SECONDS, registry=registry
        )
        waited = Histogram(
            "taskflow_task_wait_seconds", "From enqueued to claimed.", ["type"], buckets=SECONDS, registry=registry
        )
        # labels() takes a lock and builds a key at each call; what it returns may be kept.
        self._attempts = Known(names, lambda name: {one: attempts.labels(name, one.value) for one in Outcome})
        self._finished = Known(names, lambda name: {one: finished.labels(name, one.value) for one in FINAL})
        self._ran, self._waited = Known(names, ran.labels), Known(names, waited.labels)
        self._discarded = Counter(
            "taskflow_attempts_discarded", "Results dropped because the lease was lost.", registry=registry
        )
        self._refused = Counter(
            "taskflow_deliveries_refused", "Deliveries that were not ours to run.", registry=registry
        )
        Gauge("taskflow_worker_slots", "Slots of this worker.", registry=registry).set(slots)
        self._busy = Gauge("taskflow_worker_busy_slots", "Slots with a handler in them.", registry=registry)
        self._draining = Gauge("taskflow_worker_draining", "1 while it takes no tasks and ends.", registry=registry)
        self._degraded = Gauge(
            "taskflow_worker_degraded", "1 while it takes tasks from the table, without Redis.", registry=registry
        )
        self.redis = RedisMetrics(registry)
        self.pool = PoolMetrics(registry)

    def watch(
        self, *, busy: Callable[[], int], draining: Callable[[], bool], degraded: Callable[[], bool], pool: AsyncEngine
    ) -> None:
        """Tell at each scrape what these say."""
        self._busy.set_function(busy)
        self._draining.set_function(draining)
        self._degraded.set_function(degraded)
        self.pool.watch(pool)

    def claimed(self, task: Claimed) -> None:
        """Count a task that starts."""
        self._waited[task.type].observe(max(0.0, (task.claimed_at - task.enqueued_at).total_seconds()))

    def ran(self, task: Claimed, *, seconds: float) -> None:
        """Count a handler that returned or raised."""
        self._ran[task.type].observe(seconds)

    def ended(self, finished: Finished) -> None:
        """Count an attempt whose end is written."""
        type_, ending = finished.task.type, finished.ending
        self._attempts[type_][ending.outcome].inc()
        if ending.status in FINAL:
            self._finished[type_][ending.status].inc()

    def discarded(self) -> None:
        """Count a result that came after its lease was lost."""
        self._discarded.inc()

    def refused(self) -> None:
        """Count a delivery that is not one of ours."""
        self._refused.inc()


class RedisMetrics:
    """Whether Redis answers; made once for a registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._up = Gauge("taskflow_redis_up", "1 when Redis answered the last time it was asked.", registry=registry)

    def answered(self, *, yes: bool) -> None:
        """Note whether Redis answered."""
        self._up.set(yes)


class SchedulerMetrics:
    """The metrics of one scheduler process; made once for a registry."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.registry = registry
        tell_build("scheduler", registry)
        enqueued = self._counter("taskflow_tasks_enqueued", "Tasks that the scheduler enqueued.", "reason")
        self._enqueued = {reason: enqueued.labels(reason) for reason in ("due", "lost")}
        expired = self._counter("taskflow_leases_expired", "Leases that ended without a word.", "status")
        self._expired = {status: expired.labels(status) for status in ("PENDING", "FAILED", "CANCELED")}
        fired = self._counter("taskflow_schedules_fired", "Firings of schedules, by what became of them.", "outcome")
        self._fired = {outcome: fired.labels(outcome.value) for outcome in FiringOutcome}
        self._deleted = self._counter("taskflow_retention_deleted", "Rows deleted because they were old.", "what")
        self._deferred = self._counter("taskflow_deliveries_deferred", "Deliveries put off because Redis was away.")
        self._failures = self._counter("taskflow_scheduler_failures", "Rounds that PostgreSQL's absence ended.")
        self._took = Histogram(
            "taskflow_scheduler_job_seconds",
            "How long its jobs take.",
            ["job_name"],
            buckets=JOB_SECONDS,
            registry=registry,
        )
        self._late = Gauge(
            "taskflow_scheduler_lag_seconds", "How late a job began the last time.", ["job_name"], registry=registry
        )
        self._round = Gauge(
            "taskflow_scheduler_last_round_timestamp_seconds", "When the last round of jobs ended.", registry=registry
        )
        self.redis = RedisMetrics(registry)

    def enqueued(self, reason: str, tasks: int) -> None:
        """Count tasks that were due, or whose delivery was lost."""
        self._enqueued[reason].inc(tasks)

    def expired(self, status: str) -> None:
        """Count an expired lease."""
        self._expired[status].inc()

    def fired(self, outcome: FiringOutcome) -> None:
        """Count a firing of a schedule."""
        self._fired[outcome].inc()

    def deleted(self, what: str, rows: int) -> None:
        """Count rows that retention deleted."""
        self._deleted.labels(what).inc(rows)

    def deferred(self, deliveries: int) -> None:
        """Count deliveries that Redis was not there for."""
        self._deferred.inc(deliveries)

    def ran(self, job: str, *, late_s: float, seconds: float) -> None:
        """Note how late a job began and how long it took."""
        self._late.labels(job).set(late_s)
        self._took.labels(job).observe(seconds)

    def round_ended(self) -> None:
        """Note that all jobs that were due have run."""
        self._round.set_to_current_time()

    def failed(self) -> None:
        """Count a round that ended early."""
        self._failures.inc()

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(name, about, labels, registry=self.registry)


class WebhookMetrics:
    """The metrics of the webhooks that a scheduler sends; made once for a registry."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        sent = Histogram(
            "taskflow_webhook_attempt_seconds",
            "How long attempts to deliver took.",
            ["arrived"],
            buckets=SECONDS[:12],
            registry=registry,
        )
        self._sent = {arrived: sent.labels(str(arrived).lower()) for arrived in (True, False)}
        disabled = Counter(
            "taskflow_webhooks_disabled", "Webhooks that were disabled, by why.", ["reason"], registry=registry
        )
        self._disabled = {reason: disabled.labels(reason) for reason in ("overflow", "failing", "gone")}

    def sent(self, *, arrived: bool, seconds: float) -> None:
        """Count an attempt."""
        self._sent[arrived].observe(seconds)

    def disabled(self, reason: str) -> None:
        """Count a webhook that was disabled: overflow, failing or gone."""
        self._disabled[reason].inc()
