"""The scheduler process: enqueues due tasks, ends expired leases, finds lost deliveries, fires schedules, deletes.

Run as many as you like.
"""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psycopg
import uvloop
from psycopg import AsyncConnection
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from taskflow_core import recovery
from taskflow_core.database import create_engine
from taskflow_core.handlers import Registry
from taskflow_core.links import Link, pause
from taskflow_core.logs import configure_logs, get_logger
from taskflow_core.probes import Pulse, serve_probes
from taskflow_core.queue import DeliveryQueue, connect_redis
from taskflow_core.recovery import EnqueuedTask
from taskflow_core.sealing import sealer_of
from taskflow_core.settings import SchedulerSettings, load_or_exit
from taskflow_worker.metrics import SchedulerMetrics, WebhookMetrics
from taskflow_worker.retention import Retention
from taskflow_worker.schedules import Schedules
from taskflow_worker.standing import Watcher
from taskflow_worker.webhooks import Webhooks

EPOCH_KEY = "taskflow:epoch"
EVERYWHERE_S = 300.0
FORGET_S = 60.0
FORGET_AFTER = timedelta(minutes=10)
RETENTION_S = 3600.0
BREATH_S = 0.1  # between two batches of deletions
# While PostgreSQL was away no worker could renew a lease, or write the end that it holds: they come first.
AFTER_OUTAGE_S = 10.0
SHORTEST_S = 0.02

log = get_logger(__name__)

Connection = AsyncConnection[Any]


@dataclass(slots=True)
class Job:
    """Something to do every `every_s` seconds. It returns whether there is more to do, `more_s` seconds later."""

    name: str
    every_s: float
    run: Callable[[Connection], Awaitable[bool]]
    more_s: float = 0.0
    next_at: float = 0.0


class Scheduler:
    """Runs its jobs one after the other on one connection, until stopped."""

    def __init__(self, settings: SchedulerSettings, registry: Registry) -> None:
        self.settings = settings
        self.stopping = asyncio.Event()
        self.pulse = Pulse(jobs=60.0)
        self._metrics = SchedulerMetrics()
        self._queue = DeliveryQueue(connect_redis(settings), deferred=self._metrics.deferred)
        self._link = Link(settings, service="scheduler")
        self._engine = create_engine(settings, service="schedules", pool_size=1)
        self._schedules = Schedules(
            self._engine, registry, self._queue, max_pending=settings.max_pending_tasks, metrics=self._metrics
        )
        self._watcher = Watcher(settings, self._queue, self._metrics.registry)
        self._webhooks = self._build_webhooks()
        self._jobs = [
            Job("enqueue_due", settings.sweep_interval_s, self.enqueue_due),
            Job("recover_lost", settings.sweep_interval_s, self.recover_lost),
            Job("fire_schedules", settings.sweep_interval_s, self.fire_schedules),
            Job("expire_leases", settings.lease_sweep_interval_s, self.expire_leases),
            Job("expire_everywhere", EVERYWHERE_S, self.expire_everywhere),
            Job("forget_workers", FORGET_S, self.forget_workers),
            Job("delete_old", RETENTION_S, Retention(settings, self._metrics).work, more_s=BREATH_S),
        ]

    async def run(self) -> None:
        """Work until stopped; an outage of PostgreSQL is waited out with backoff."""
        beside = [asyncio.create_task(self._watcher.run(self.stopping))]
        if self._webhooks is not None:
            beside.append(asyncio.create_task(self._webhooks.run(self.stopping)))
        failures = 0
        while not self.stopping.is_set():
            try:
                connection = await self._link.get()
                await self._run_due_jobs(connection)
                self.pulse.beat("jobs")
                self._metrics.round_ended()
                self.pulse.started()
                wait_s = await self._until_next(connection)
                failures = 0
            except (psycopg.Error, OSError) as error:
                failures += 1
                self._metrics.failed()
                log.warning("database.away", reason=str(error).strip())
                await self._link.drop()
                self._spare_leases()
                await pause(failures, stop=self.stopping)
                continue
            try:
                await asyncio.wait_for(self.stopping.wait(), wait_s)
            except TimeoutError:
                continue
        await self._link.drop()
        await asyncio.gather(*beside)
        await self._engine.dispose()
        await self._queue.redis.aclose()

    def _build_webhooks(self) -> Webhooks | None:
        sealer = sealer_of(self.settings)
        if sealer is None:
            log.info("webhooks.off", reason="TASKFLOW_WEBHOOK_KEY is not set")
            return None
        self.pulse.watch("webhooks", 60.0)
        return Webhooks(self.settings, sealer, pulse=self.pulse, metrics=WebhookMetrics())

    async def _run_due_jobs(self, connection: Connection) -> None:
        for job in self._jobs:
            now = time.monotonic()
            if now < job.next_at or self.stopping.is_set():
                continue
            late_s = now - job.next_at if job.next_at else 0.0
            more = await job.run(connection)
            self._metrics.ran(job.name, late_s=late_s, seconds=time.monotonic() - now)
            job.next_at = now + (job.more_s if more else job.every_s)

    def _spare_leases(self) -> None:
        for job in self._jobs:
            if job.run in {self.expire_leases, self.expire_everywhere}:
                job.next_at = max(job.next_at, time.monotonic() + AFTER_OUTAGE_S)

    async def _until_next(self, connection: Connection) -> float:
        """Return the seconds until the next job, or until the next task becomes due where that is sooner."""
        now = time.monotonic()
        wait_s = min(job.next_at for job in self._jobs) - now
        due_s = await recovery.next_due_s(connection)
        if due_s is not None and due_s < wait_s:
            wait_s = due_s
            self._jobs[0].next_at = now + max(due_s, SHORTEST_S)
        return max(wait_s, SHORTEST_S)

    async def enqueue_due(self, connection: Connection) -> bool:
        """Enqueue retries and delayed tasks whose time has come."""
        return await self._deliver("tasks.due", await recovery.mark_due(connection))

    async def recover_lost(self, connection: Connection) -> bool:
        """Enqueue again what waits in the table and is no longer in its list; skipped while Redis is away."""
        try:
            lanes = await recovery.lanes(connection)
            emptied = await self._was_emptied(connection)
            heads = await self._queue.heads(lanes) if lanes else {}
            grace = timedelta() if emptied else recovery.GRACE
            more = False
            for lane, head in heads.items():
                lost = await recovery.mark_lost(
                    connection, lane, head=None if head is None else head.enqueued_at, grace=grace
                )
                more |= await self._deliver("tasks.lost", lost, lane=lane)
            if emptied and not more:
                await self._queue.redis.set(EPOCH_KEY, await recovery.epoch(connection))
        except (RedisError, OSError) as error:
            self._metrics.redis.answered(yes=False)
            log.warning("redis.away", reason=str(error) or type(error).__name__)
            return False
        self._metrics.redis.answered(yes=True)
        return more

    async def fire_schedules(self, _connection: Connection) -> bool:
        """Create the tasks of schedules whose time has come; what goes wrong there holds up no other job."""
        try:
            return await self._schedules.fire_due()
        except SQLAlchemyError as error:
            log.warning("schedules.failed", reason=str(error).partition("\n")[0])
            return False

    async def expire_leases(self, connection: Connection) -> bool:
        """End attempts of workers that stopped renewing."""
        return self._log_expired(await recovery.expire(connection))

    async def expire_everywhere(self, connection: Connection) -> bool:
        """Look for expired leases that no worker's row names."""
        return self._log_expired(await recovery.expire(connection, everywhere=True))

    async def forget_workers(self, connection: Connection) -> bool:
        """Delete the rows of workers that are long gone."""
        await recovery.forget_workers(connection, after=FORGET_AFTER)
        return False

    async def _was_emptied(self, connection: Connection) -> bool:
        expected = await recovery.epoch(connection)
        return await self._queue.redis.get(EPOCH_KEY) not in {expected, expected.encode()}

    async def _deliver(self, event: str, marked: list[EnqueuedTask], **fields: Any) -> bool:
        if marked:
            delivered = await self._queue.deliver(marked)
            self._metrics.enqueued(event.removeprefix("tasks."), len(marked))
            log.info(event, tasks=len(marked), delivered=delivered, **fields)
        return len(marked) == recovery.BATCH

    def _log_expired(self, expired: list[recovery.Expired]) -> bool:
        for task in expired:
            self._metrics.expired(task.status)
            log.warning("lease.expired", task_id=str(task.id), worker_id=task.worker_id, status=task.status)
        return len(expired) == recovery.BATCH


async def _serve(settings: SchedulerSettings, registry: Registry) -> None:
    scheduler = Scheduler(settings, registry)
    serve_probes(settings.probe_port, scheduler.pulse, host=settings.probe_host)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, scheduler.stopping.set)
    log.info("scheduler.started")
    await scheduler.run()
    log.info("scheduler.stopped")


def main() -> None:
    """Run a scheduler until SIGTERM or SIGINT."""
    settings = load_or_exit(SchedulerSettings)
    configure_logs(level=settings.log_level, style=settings.log_format, service="scheduler")
    uvloop.run(_serve(settings, Registry.load_or_exit()))


if __name__ == "__main__":
    main()
