"""The scheduler's part that gathers how the platform stands, beside its jobs: neither waits for the other.

A scrape reads what was gathered last and asks nobody. What is older than STALE_ROUNDS rounds is not told any more: no
figure is better than one of before the outage. Each scheduler tells the same of the whole platform: use `max by`.
"""

import asyncio
import random
import time
from collections.abc import Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from redis.exceptions import RedisError

from taskflow_core import standing
from taskflow_core.links import Link
from taskflow_core.logs import get_logger
from taskflow_core.queue import DeliveryQueue
from taskflow_core.settings import SchedulerSettings
from taskflow_core.standing import Standing

STATEMENT_S = 2.0
LOOK_S = 8.0
STALE_ROUNDS = 3

log = get_logger(__name__)


class Watcher(Collector):
    """Gathers how the platform stands every `metrics_interval_s` seconds, and tells it to Prometheus."""

    def __init__(self, settings: SchedulerSettings, queue: DeliveryQueue, registry: CollectorRegistry) -> None:
        self._every_s = settings.metrics_interval_s
        self._queue = queue
        # Later options win over earlier ones. What is counted has an index, and a table of millions is not read whole.
        own = f" -c statement_timeout={int(STATEMENT_S * 1000)} -c enable_seqscan=off"
        self._link = Link(settings, service="metrics", planner=own)
        self._seen: Standing | None = None
        self._waiting: dict[str, int] = {}
        self._at = 0.0
        self._told_at = 0.0
        registry.register(self)

    async def run(self, stopping: asyncio.Event) -> None:
        """Gather until told to stop; a look that fails is left out."""
        while not stopping.is_set():
            try:
                async with asyncio.timeout(LOOK_S):
                    seen = await standing.look(await self._link.get())
                    waiting = await self._depths(seen)
                self._seen, self._waiting = seen, waiting
                self._at, self._told_at = time.monotonic(), time.time()
            except Exception as error:  # noqa: BLE001 - whatever is wrong here stops no task of the platform
                log.warning("metrics.away", error=type(error).__name__, reason=str(error).strip())
                await self._link.drop()
            try:
                await asyncio.wait_for(stopping.wait(), self._every_s * random.uniform(0.9, 1.0))  # noqa: S311 - jitter
            except TimeoutError:
                continue
        await self._link.drop()

    async def _depths(self, seen: Standing) -> dict[str, int]:
        """Return how many deliveries wait in each queue; nothing while Redis is away."""
        names = [name for name, queue in seen.queues.items() for _ in queue.lanes]
        lanes = [lane for queue in seen.queues.values() for lane in queue.lanes]
        waiting = dict.fromkeys(seen.queues, 0)
        try:
            for name, depth in zip(names, await self._queue.depths(lanes), strict=True):
                waiting[name] += depth
        except (RedisError, OSError):
            return {}
        return waiting

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Return what was gathered last, nothing when that is stale; called at each scrape, in the probes' thread."""
        seen, waiting = self._seen, self._waiting
        if seen is None or time.monotonic() - self._at > self._every_s * STALE_ROUNDS + LOOK_S:
            return
        yield from families(seen, waiting, gathered_at=self._told_at)


def families(seen: Standing, waiting: Mapping[str, int], *, gathered_at: float) -> Iterator[GaugeMetricFamily]:
    """Return the metrics that say how the platform stands; `gathered_at` in seconds since 1970."""
    yield _one("taskflow_standing_timestamp_seconds", "When these were gathered.", gathered_at)
    queues = seen.queues.items()
    yield _by("queue", "taskflow_queue_waiting", "Deliveries that wait.", list(waiting.items()))
    yield _by("queue", "taskflow_queue_running", "Tasks that run.", [(name, one.running) for name, one in queues])
    yield _by(
        "queue",
        "taskflow_queue_oldest_age_seconds",
        "Since when the first of those that wait has been enqueued.",
        [(name, one.oldest_age_s) for name, one in queues],
    )
    yield _by("queue", "taskflow_queue_paused", "1 while paused.", [(name, one.paused) for name, one in queues])
    yield _by("state", "taskflow_workers", "Workers that are registered.", list(seen.workers.items()))
    yield _by("state", "taskflow_webhook_endpoints", "Webhooks.", list(seen.webhooks.items()))
    yield _one("taskflow_outbox_lag_seconds", "For how long the first due task was not enqueued.", seen.outbox_lag_s)
    yield _one("taskflow_dead_letters", "FAILED tasks, counted up to 20,000.", seen.dead_letters)
    yield _one(
        "taskflow_webhook_deliveries_waiting", "Deliveries to send, counted up to 20,000.", seen.webhooks_waiting
    )
    yield _one("taskflow_webhook_lag_seconds", "For how long the first due delivery waits.", seen.webhooks_lag_s)


def _one(name: str, about: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, about, value=value)


def _by(label: str, name: str, about: str, values: Sequence[tuple[str, float]]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, about, labels=[label])
    for key, value in values:
        family.add_metric([key], value)
    return family
