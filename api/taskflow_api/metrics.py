"""What the API counts for Prometheus; one registry for each app, so that two in one process do not collide."""

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The counters of one app."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "taskflow_http_requests",
            "HTTP requests answered.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self._latency = Histogram(
            "taskflow_http_request_duration_seconds",
            "Time from the first byte of a request to the last of its answer.",
            ["method", "route"],
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._created = Counter("taskflow_tasks_created", "Tasks created over HTTP.", ["type"], registry=self.registry)

    def request_finished(self, *, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request; a method that HTTP does not define counts as OTHER, to bound the labels."""
        method = method if method in METHODS else "OTHER"
        children = self._children.get((method, route, status))
        if children is None:  # finding them by their labels costs more than counting
            children = self._requests.labels(method, route, str(status)), self._latency.labels(method, route)
            self._children[method, route, status] = children
        children[0].inc()
        children[1].observe(seconds)

    def task_created(self, type_: str, tasks: int = 1) -> None:
        """Count committed tasks."""
        self._created.labels(type_).inc(tasks)

    def render(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)
