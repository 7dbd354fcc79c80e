"""What the API counts for Prometheus; one registry for each app, so that two in one process do not collide."""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from sqlalchemy.ext.asyncio import AsyncEngine

from taskflow_core.measures import Known, tell_build
from taskflow_core.pool_metrics import PoolMetrics

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LOGINS = ("succeeded", "failed", "limited")


class Metrics:
    """The counters of one app, which accepts tasks of `types`."""

    def __init__(self, *, types: Iterable[str]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        tell_build("api", self.registry)
        self.in_flight = 0  # an attribute, because a gauge takes a lock each time
        self._count_requests()
        self._refused = self._counter(
            "taskflow_http_refused", "Requests refused for now, with 429 or 503, by the problem's code.", "code"
        )
        logins = self._counter("taskflow_logins", "Logins that were tried, by how they ended.", "outcome")
        self._logins = {outcome: logins.labels(outcome) for outcome in LOGINS}
        created = self._counter("taskflow_tasks_created", "Tasks created over HTTP.", "type")
        self._created = Known(types, created.labels)
        self._deferred = self._counter(
            "taskflow_deliveries_deferred", "Deliveries left to the scheduler because Redis was away."
        )
        self._pool = PoolMetrics(self.registry)
        self._streams = self._gauge("taskflow_streams_open", "Event streams that are open.")
        self._waits = self._gauge("taskflow_waits_open", "Requests that wait for a task's end.")

    def _count_requests(self) -> None:
        self._requests = self._counter("taskflow_http_requests", "HTTP requests answered.", "method", "route", "status")
        self._latency = Histogram(
            "taskflow_http_request_duration_seconds",
            "Time from the first byte of a request to the last of its answer, without those held open on purpose.",
            ["method", "route"],
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        in_flight = self._gauge(
            "taskflow_http_requests_in_flight", "Requests that are being answered, streams included."
        )
        in_flight.set_function(lambda: self.in_flight)

    def request_finished(self, *, method: str, route: str, status: int, seconds: float | None) -> None:
        """Count one request; a method that HTTP does not define counts as OTHER, to bound the labels.

        `seconds` is None for a request that was held open on purpose: its time says nothing.
        """
        method = method if method in METHODS else "OTHER"
        children = self._children.get((method, route, status))
        if children is None:  # finding them by their labels costs more than counting
            children = self._requests.labels(method, route, str(status)), self._latency.labels(method, route)
            self._children[method, route, status] = children
        children[0].inc()
        if seconds is not None:
            children[1].observe(seconds)

    def refused(self, code: str) -> None:
        """Count a request that was refused for now."""
        self._refused.labels(code).inc()

    def login(self, outcome: str) -> None:
        """Count a login: succeeded, failed or limited."""
        self._logins[outcome].inc()

    def task_created(self, type_: str, tasks: int = 1) -> None:
        """Count committed tasks."""
        self._created[type_].inc(tasks)

    def deferred(self, deliveries: int) -> None:
        """Count deliveries that Redis was not there for."""
        self._deferred.inc(deliveries)

    def watch(self, *, engine: AsyncEngine, streams: Callable[[], int], waits: Callable[[], int]) -> None:
        """Tell of this pool, and of what is held open, from now on."""
        self._pool.watch(engine)
        self._streams.set_function(streams)
        self._waits.set_function(waits)

    def render(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(name, about, labels, registry=self.registry)

    def _gauge(self, name: str, about: str) -> Gauge:
        return Gauge(name, about, registry=self.registry)
