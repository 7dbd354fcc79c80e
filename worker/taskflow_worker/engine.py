"""The engine of a worker: pops up to its free slots, claims in one statement, runs, and writes ends in batches.

A batch is what is there, never a wait to fill it: one task pays nothing, many share each round trip. Three loops:
fetch (pop, claim, start), finish (write ends), watch (timeouts, progress, wishes to cancel). Leases are renewed by a
thread of its own (keeper.py), so that no handler can hold it up.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import psycopg
from psycopg import AsyncConnection
from pydantic import BaseModel
from redis.exceptions import RedisError

from taskflow_core import leases, limits
from taskflow_core.database import Sessions
from taskflow_core.handlers import Context, NonRetryable, Registry, TaskType
from taskflow_core.leases import AttemptKey, Claimed, Finished
from taskflow_core.limits import Limits
from taskflow_core.links import Link, pause
from taskflow_core.logs import get_logger
from taskflow_core.probes import Pulse
from taskflow_core.settings import WorkerSettings
from taskflow_worker.beacon import BeaconLight
from taskflow_worker.endings import Writer
from taskflow_worker.inbox import Inbox
from taskflow_worker.metrics import WorkerMetrics
from taskflow_worker.runs import Interrupt, Run

WATCH_S = 0.25
REPORT_S = 1.0
MAX_LINES_AT_ONCE = 5000
BACKLOG_PER_SLOT = 4  # ends that wait to be written, for each slot, before fetching pauses

log = get_logger(__name__)


class _Anything(BaseModel):
    """The payload of a task whose type nobody knows."""


class Engine:
    """Runs tasks in `slots` slots until `stop` is called; one instance a process."""

    def __init__(
        self,
        settings: WorkerSettings,
        registry: Registry,
        *,
        worker_id: str,
        inbox: Inbox,
        sessions: Sessions,
        light: BeaconLight,
        pulse: Pulse,
        metrics: WorkerMetrics,
    ) -> None:
        self.settings = settings
        self.registry = registry
        self.worker_id = worker_id
        self.runs: dict[AttemptKey, Run] = {}
        self.busy = 0
        self.finished = 0
        self.stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._grace_ends_at = 0.0
        self.inbox = inbox
        self._sessions = sessions
        self.light = light
        self._claiming = 0
        self._pulse = pulse
        self._metrics = metrics
        self._limits = Limits(
            {name: most for name in registry.names() if (type_ := registry.get(name)) and (most := type_.max_running)},
            settings.max_running_per_owner,
        )
        self._claims = Link(settings, service="worker-claim")
        self._reports = Link(settings, service="worker-report")
        self._writer = Writer(settings, worker_id=worker_id, written=self._written, metrics=metrics)
        self._threads = ThreadPoolExecutor(settings.slots, thread_name_prefix="task")
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def held(self) -> int:
        """How many tasks this worker answers for: popped, running, or with an end that is not written yet."""
        return len(self.runs) + self._claiming

    def stop(self) -> None:
        """Take no more tasks, let the running ones end within the grace, release the rest. Again: the same."""
        if not self.stopping.is_set():
            self._grace_ends_at = time.monotonic() + self.settings.shutdown_grace_s
        self.stopping.set()
        self._changed.set()

    def interrupt_stop(self) -> None:
        """Stop for Ctrl-C: the first one is like `stop`, the second skips the grace."""
        if self.stopping.is_set():
            self._hurry.set()
        self.stop()

    async def shine(self) -> None:
        """Keep the worker's beacon lit until it is put out."""
        await self.light.shine(held=lambda: self.held, paused=lambda: self.inbox.paused, stopping=self.stopping.is_set)

    async def run(self) -> bool:
        """Work until stopped. Returns False when a handler's thread would not end, so that the process must."""
        writing = asyncio.create_task(self._writer.run(), name="finish")
        watching = asyncio.create_task(self._watch(), name="watch")
        fetching = asyncio.create_task(self._fetch(), name="fetch")
        done, _ = await asyncio.wait({writing, watching, fetching}, return_when=asyncio.FIRST_COMPLETED)
        if fetching not in done:
            log.critical("engine.broken", loop=[task.get_name() for task in done])
        self.stop()
        await asyncio.wait({fetching}, timeout=self.settings.database_timeout_s)
        await self._drain()
        clean = not any(run.task for run in self.runs.values())
        self._release_rest()
        await self._write_rest(writing)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        for link in (self._claims, self._reports):
            await link.drop()
        self._threads.shutdown(wait=False, cancel_futures=True)
        for task in done:
            task.result()
        return clean

    async def _fetch(self) -> None:
        failures = 0
        await self._report([])  # learns which queues are paused before the first pop
        while not self.stopping.is_set():
            self._pulse.beat("fetch")
            free = await self._free_slots()
            if free == 0:
                continue
            try:
                taken = await self._take(free)
                failures = 0
            except (RedisError, OSError, psycopg.OperationalError) as error:
                failures += 1
                log.warning("inbox.away", reason=str(error) or type(error).__name__, degraded=self.inbox.degraded)
                await pause(failures, stop=self.stopping)
                continue
            if taken:
                self._claiming = len(taken)
                self.light.changed()
                await self._claim(taken)
                self._claiming = 0
                self._tell_if_idle()

    async def _take(self, free: int) -> list[UUID]:
        try:
            return await self.inbox.take(free)
        except (RedisError, OSError):
            if not self.inbox.degraded:
                raise
            taken = await self.inbox.take_from_table(self._claims, free)
            if not taken:
                await pause(4, stop=self.stopping)
            return taken

    async def _free_slots(self) -> int:
        """Return how many tasks may be popped now; 0 after a wait, so that the caller looks again."""
        limit = self.settings.slots
        if self.busy < limit and len(self.runs) < limit * BACKLOG_PER_SLOT:
            return limit - self.busy
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), REPORT_S)
        return 0

    async def _claim(self, task_ids: Sequence[UUID]) -> None:
        """Claim what was popped; during an outage of PostgreSQL try until it is back or the worker stops."""
        failures = 0
        while not self.stopping.is_set():
            self._pulse.beat("fetch")
            try:
                connection = await self._claims.get()
                claimed = await limits.claim(
                    connection,
                    task_ids,
                    limits=self._limits,
                    worker=self.worker_id,
                    held=[run.task_id for run in self.runs.values()],
                    lease_s=self.settings.lease_s,
                )
                if failures:  # an earlier claim may have been made, its answer lost: this one waited for its end
                    claimed = await leases.adopt(connection, task_ids, worker=self.worker_id)
            except (psycopg.Error, OSError) as error:
                failures += 1
                log.warning("claim.failed", tasks=len(task_ids), reason=str(error).strip())
                await self._claims.drop()
                await pause(failures, stop=self.stopping)
                continue
            self._claiming = 0
            for task in claimed:
                if task.key not in self.runs:
                    self._start(task)
            await self.inbox.forget(task_ids)
            return
        await self.inbox.give_back(task_ids)

    def _start(self, claimed: Claimed) -> None:
        run = Run(claimed, self.registry.get(claimed.type) or self._unknown(claimed.type), self._sessions)
        self.runs[claimed.key] = run
        self.busy += 1
        self._metrics.claimed(claimed)
        run.task = asyncio.create_task(self._run(run))
        self._tasks.add(run.task)
        run.task.add_done_callback(self._tasks.discard)

    def _unknown(self, name: str) -> TaskType:
        """Return a type that fails; its task is run like any other, so that its lease is kept and found."""

        async def refuse(_ctx: Context, _payload: BaseModel) -> None:
            known = ", ".join(self.registry.names())
            raise NonRetryable(f"this worker knows no task type {name}; it knows {known}", code="unknown_type")

        return TaskType(name, _Anything, None, refuse, is_async=True, timeout_s=1, max_running=None, summary="")

    async def _run(self, run: Run) -> None:
        try:
            ending = await run.execute(self._threads)
        except asyncio.CancelledError:  # told to stop before its first step
            ending = run.ending_of_interrupt(run.interrupted or Interrupt.SHUTDOWN)
        run.task = None
        self.busy -= 1
        seconds = time.monotonic() - run.started
        self._metrics.ran(run.claimed, seconds=seconds)
        self.light.ran(run.claimed.queue, seconds)
        self._changed.set()
        if ending is None:
            log.warning("attempt.discarded", task_id=str(run.task_id), attempt=run.attempt, why="lease lost")
            self._metrics.discarded()
            self._writer.abandon(run.transaction)
            self.runs.pop(run.claimed.key, None)
            self._tell_if_idle()
            return
        self._writer.put(Finished(run.claimed, ending, run.logs), run.transaction)

    def _written(self, claimed: Claimed) -> None:
        self.finished += 1
        self.runs.pop(claimed.key, None)
        self._changed.set()
        self._tell_if_idle()

    def _tell_if_idle(self) -> None:
        if self.held == 0:
            self.light.changed()

    async def _watch(self) -> None:
        """Raise soft timeouts, send progress, learn of wishes to cancel and of lost leases."""
        reported = 0.0
        while True:
            await asyncio.sleep(WATCH_S)
            self._pulse.beat("watch")
            now = time.monotonic()
            for run in list(self.runs.values()):
                if run.task is None:
                    continue
                if run.interrupted is None and run.overdue_s(now) > 0:
                    log.warning("attempt.timeout", task_id=str(run.task_id), timeout_s=run.claimed.timeout_s)
                    run.interrupt(Interrupt.TIMEOUT)
                elif run.interrupted is not None and now - run.interrupted_at > 1:
                    run.interrupt(run.interrupted)
            if now - reported >= REPORT_S:
                reported = now
                await self._report([run for run in self.runs.values() if run.task and now - run.started > REPORT_S / 2])

    async def _report(self, runs: Sequence[Run]) -> None:
        progress = [(run, run.unsent_progress) for run in runs]
        try:
            connection = await self._reports.get()
            self.inbox.paused = await leases.paused(connection)
            if not runs:
                return
            await self._write_lines(connection, runs)
            rows = [(run.claimed, value) for run, value in progress]
            held = await leases.report(connection, rows, worker=self.worker_id)
        except (psycopg.Error, OSError) as error:
            log.warning("report.failed", reason=str(error).strip())
            await self._reports.drop()
            return
        wishes = {row.key: row.cancel_requested for row in held}
        for run, sent in progress:
            if run.unsent_progress is sent:
                run.unsent_progress = None
            if run.task is None or run.interrupted is not None:
                continue
            if run.claimed.key not in wishes:
                run.interrupt(Interrupt.LOST)
            elif wishes[run.claimed.key]:
                log.info("attempt.cancel", task_id=str(run.task_id))
                run.interrupt(Interrupt.CANCEL)

    async def _write_lines(self, connection: AsyncConnection[Any], runs: Sequence[Run]) -> None:
        """Write what handlers have logged; what was not confirmed is written again, at the latest with the end."""
        lines = [(run, line) for run in runs if run.logs for line in run.logs][:MAX_LINES_AT_ONCE]
        if not lines:
            return
        await leases.write_lines(connection, [(run.claimed, line) for run, line in lines], worker=self.worker_id)
        for run, count in Counter(run for run, _ in lines).items():
            if run.task is not None:  # else its end is being written, with all that is left
                del run.logs[:count]

    async def _drain(self) -> None:
        """Wait for the running handlers, at most the grace; then tell them to stop and wait a little more."""
        if self._tasks:
            log.info("worker.draining", running=len(self._tasks), grace_s=self.settings.shutdown_grace_s)
            hurry = asyncio.create_task(self._hurry.wait())
            ended = asyncio.ensure_future(asyncio.wait(set(self._tasks)))
            await asyncio.wait(
                {hurry, ended}, timeout=self.settings.shutdown_grace_s, return_when=asyncio.FIRST_COMPLETED
            )
            hurry.cancel()
            ended.cancel()
        for run in list(self.runs.values()):
            if run.task is not None:
                run.interrupt(Interrupt.SHUTDOWN)
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=2)

    async def _write_rest(self, writing: "asyncio.Task[None]") -> None:
        """Write the last ends; while PostgreSQL is away that takes what is left of the grace, unless Ctrl-C hurries."""
        within_s = max(self.settings.database_timeout_s, self._grace_ends_at - time.monotonic())
        self._writer.close(within_s=within_s)
        hurry = asyncio.create_task(self._hurry.wait())
        await asyncio.wait({writing, hurry}, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()

    def _release_rest(self) -> None:
        """Give back what would not stop; its process ends right after."""
        for run in self.runs.values():
            if run.task is not None:
                ending = run.ending_of_interrupt(Interrupt.SHUTDOWN)
                if ending is not None:
                    self._writer.put(Finished(run.claimed, ending, tuple(run.logs)))
