"""Writes how attempts ended: many in one statement, those with a session of their own in its transaction."""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from taskflow_core import leases
from taskflow_core.database import driver_of
from taskflow_core.leases import Claimed, Finished
from taskflow_core.lifecycle import Ending, Outcome, TaskStatus, error_document, failed, retried_or_failed
from taskflow_core.links import Link, pause, plan_hot
from taskflow_core.logs import get_logger
from taskflow_core.settings import WorkerSettings
from taskflow_worker.metrics import WorkerMetrics

BATCH = 200

log = get_logger(__name__)


class _Item(NamedTuple):
    finished: Finished
    session: AsyncSession | None


class Writer:
    """Takes ends from the engine and writes them until closed; `written` is told each task that is done with."""

    def __init__(
        self, settings: WorkerSettings, *, worker_id: str, written: Callable[[Claimed], None], metrics: WorkerMetrics
    ) -> None:
        self._worker_id = worker_id
        self._written = written
        self._metrics = metrics
        self._link = Link(settings, service="worker-finish")
        self._waiting: asyncio.Queue[_Item | None] = asyncio.Queue()
        self._own: set[asyncio.Task[None]] = set()
        self._until = math.inf

    def put(self, finished: Finished, session: AsyncSession | None = None) -> None:
        """Have an end written; the engine bounds how many wait by pausing its fetches."""
        self._waiting.put_nowait(_Item(finished, session))

    def abandon(self, session: AsyncSession | None) -> None:
        """Roll back what a handler wrote whose lease is lost."""
        if session is not None:
            self._spawn(_rollback(session))

    def close(self, *, within_s: float) -> None:
        """Write what is waiting, then end `run`; what PostgreSQL does not take in time is left to its lease's end."""
        self._until = time.monotonic() + within_s
        self._waiting.put_nowait(None)

    async def run(self) -> None:
        """Write ends as they come; a batch is what is there."""
        open_ = True
        while open_:
            items = [await self._waiting.get()]
            while len(items) < BATCH and not self._waiting.empty():
                items.append(self._waiting.get_nowait())
            open_ = None not in items
            together = []
            for item in items:
                if item is not None and item.session is not None:
                    self._spawn(self._write_in_session(item.finished, item.session))
                elif item is not None:
                    together.append(item.finished)
            if together:
                await self._write(together)
            if not open_ and self._own:
                await asyncio.wait(set(self._own))
                open_ = not self._waiting.empty()
        await self._link.drop()

    def _spawn(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._own.add(task)
        task.add_done_callback(self._own.discard)

    async def _write(self, batch: Sequence[Finished]) -> None:
        """Write a batch, trying again while PostgreSQL is away: the keeper holds the leases meanwhile."""
        failures = 0
        while True:
            try:
                ended = await leases.finish(await self._link.get(), batch, worker=self._worker_id)
                break
            except (psycopg.OperationalError, psycopg.InterfaceError, OSError) as error:
                failures += 1
                log.warning("finish.failed", attempts=len(batch), reason=str(error).strip())
                await self._link.drop()
                if time.monotonic() > self._until:
                    return
                await pause(failures)
            except psycopg.Error as error:
                await self._write_one_by_one(batch, error)
                return
        self._report(batch, ended, certain=not failures)

    async def _write_one_by_one(self, batch: Sequence[Finished], error: psycopg.Error) -> None:
        """Keep one unstorable end from failing its neighbours: that task becomes FAILED, named."""
        if len(batch) > 1:
            for item in batch:
                await self._write([item])
        elif batch[0].ending.error is not None and batch[0].ending.error["code"] == "unstorable":
            log.error("attempt.unstorable", task_id=str(batch[0].task.id), reason=str(error).strip())
            self._written(batch[0].task)
        else:
            ending = failed("unstorable", f"the end of the attempt could not be stored: {type(error).__name__}")
            await self._write([batch[0]._replace(ending=ending, logs=())])

    async def _write_in_session(self, finished: Finished, session: AsyncSession) -> None:
        """Commit what the handler wrote together with COMPLETED; any other end rolls it back."""
        ending = finished.ending
        if ending.status is not TaskStatus.COMPLETED:
            await _rollback(session)
            self.put(finished)
            return
        try:
            driver = await driver_of(session)
            await session.flush()
            await plan_hot(driver)
            ended = await leases.finish(driver, [finished], worker=self._worker_id)
            if not ended:
                await _rollback(session)
                self._report([finished], ended, certain=True)
                return
            await session.commit()
            await session.close()
        except (SQLAlchemyError, psycopg.Error, OSError) as error:
            # If the commit arrived after all, the row is no longer RUNNING and the retry below changes nothing.
            await _rollback(session)
            self.put(finished._replace(ending=_retry_of(finished, error)))
            return
        self._report([finished], ended, certain=True)

    def _report(self, batch: Sequence[Finished], ended: set[UUID], *, certain: bool) -> None:
        """Tell the engine, the metrics and the log; an attempt that completed is worth no line of its own."""
        for item in batch:
            self._written(item.task)
            if item.task.id in ended:
                self._metrics.ended(item)
            elif certain:
                self._metrics.discarded()
            if item.task.id not in ended or item.ending.outcome is not Outcome.COMPLETED:
                self._log_end(item, written=item.task.id in ended, certain=certain)
        log.debug("attempts.written", attempts=len(batch))

    def _log_end(self, item: Finished, *, written: bool, certain: bool) -> None:
        fields: dict[str, Any] = {
            "task_id": str(item.task.id),
            "type": item.task.type,
            "attempt": item.task.attempt,
            "outcome": item.ending.outcome.value,
        }
        if written:
            log.info("attempt.finished", **fields)
        else:
            log.warning("attempt.discarded" if certain else "attempt.unconfirmed", **fields)


def _retry_of(finished: Finished, error: Exception) -> Ending:
    document = error_document("commit_failed", str(error).strip(), type=type(error).__qualname__)
    task = finished.task
    return retried_or_failed(document, attempt=task.attempt, max_attempts=task.max_attempts, spread=1.0)


async def _rollback(session: AsyncSession) -> None:
    try:
        await session.rollback()
        await session.close()
    except (SQLAlchemyError, psycopg.Error, OSError):
        await session.invalidate()
