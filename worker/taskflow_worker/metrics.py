"""What workers and schedulers count, in Prometheus' terms. Labels are bounded: installed types and words of our own."""

from functools import lru_cache

from prometheus_client import Counter, Gauge, Histogram

from taskflow_core.leases import Claimed, Finished

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)


class WorkerMetrics:
    """The metrics of one worker process; made once."""

    def __init__(self, *, slots: int) -> None:
        self._attempts = Counter("taskflow_attempts", "Attempts that ended, by how.", ["type", "outcome"])
        self._ran = Histogram("taskflow_attempt_run_seconds", "How long handlers ran.", ["type"], buckets=SECONDS)
        self._waited = Histogram("taskflow_task_wait_seconds", "From enqueued to claimed.", ["type"], buckets=SECONDS)
        # labels() takes a lock and builds a key at each call; what it returns may be kept.
        self._attempts_of = lru_cache(1000)(self._attempts.labels)
        self._ran_of, self._waited_of = lru_cache(1000)(self._ran.labels), lru_cache(1000)(self._waited.labels)
        self._discarded = Counter("taskflow_attempts_discarded", "Results dropped because the lease was lost.")
        self._refused = Counter("taskflow_deliveries_refused", "Deliveries that were not ours to run.")
        self._busy = Gauge("taskflow_worker_busy_slots", "Slots with a handler in them.")
        Gauge("taskflow_worker_slots", "Slots of this worker.").set(slots)

    def claimed(self, task: Claimed, *, busy: int) -> None:
        """Count a task that starts."""
        self._waited_of(task.type).observe(max(0.0, (task.claimed_at - task.enqueued_at).total_seconds()))
        self._busy.set(busy)

    def ran(self, task: Claimed, *, seconds: float, busy: int) -> None:
        """Count a handler that returned or raised."""
        self._ran_of(task.type).observe(seconds)
        self._busy.set(busy)

    def ended(self, finished: Finished) -> None:
        """Count an attempt whose end is written."""
        self._attempts_of(finished.task.type, finished.ending.outcome.value).inc()

    def discarded(self) -> None:
        """Count a result that came after its lease was lost."""
        self._discarded.inc()

    def refused(self) -> None:
        """Count a delivery that is not one of ours."""
        self._refused.inc()


class SchedulerMetrics:
    """The metrics of one scheduler process; made once."""

    def __init__(self) -> None:
        self._enqueued = Counter("taskflow_tasks_enqueued", "Tasks the scheduler put into a queue.", ["reason"])
        self._expired = Counter("taskflow_leases_expired", "Leases that ended without a word.", ["status"])

    def enqueued(self, reason: str, tasks: int) -> None:
        """Count tasks that were due, or whose delivery was lost."""
        self._enqueued.labels(reason).inc(tasks)

    def expired(self, status: str) -> None:
        """Count an expired lease."""
        self._expired.labels(status).inc()


class WebhookMetrics:
    """The metrics of the webhooks that a scheduler sends; made once."""

    def __init__(self) -> None:
        self._sent = Histogram(
            "taskflow_webhook_attempt_seconds", "How long attempts to deliver took.", ["arrived"], buckets=SECONDS[:12]
        )

    def sent(self, *, arrived: bool, seconds: float) -> None:
        """Count an attempt."""
        self._sent.labels(str(arrived).lower()).observe(seconds)
