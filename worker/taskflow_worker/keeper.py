"""Keeps leases from a thread and a connection of its own, so that no handler can hold the renewals up.

It also has the last word: a handler that ignores its interrupt is ended with the process, after every other task has
been released.
"""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import Connection

from taskflow_core import leases
from taskflow_core.leases import AttemptKey, Finished
from taskflow_core.links import connect_blocking
from taskflow_core.logs import get_logger
from taskflow_core.probes import Pulse
from taskflow_core.settings import WorkerSettings
from taskflow_worker.runs import HARD_GRACE_S, Interrupt, Run

TICK_S = 0.5
HEARTBEAT_S = 15.0  # however long a lease is: a worker that is silent for three of these counts as lost
STUCK_STATUS = 70  # sysexits.h EX_SOFTWARE

REGISTER = """
INSERT INTO workers (id, name, hostname, pid, queues, slots, version)
VALUES (%(id)s, %(name)s, %(hostname)s, %(pid)s, %(queues)s, %(slots)s, %(version)s)
ON CONFLICT (id) DO UPDATE SET heartbeat_at = clock_timestamp(), state = %(state)s
"""

# The scheduler looks for expired leases in the workers' rows: one that holds a task stays until that is recovered.
GOODBYE = """
DELETE FROM workers w WHERE id = %s AND NOT EXISTS (
  SELECT 1 FROM tasks t WHERE t.id = ANY (w.held) AND t.worker_id = w.id AND t.status = 'RUNNING')
"""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a worker is: `id` is new at each boot, so an old boot's fence never passes for this one's."""

    id: str
    name: str
    hostname: str
    pid: int
    queues: Sequence[str]
    slots: int
    version: str


class Keeper:
    """Renews the leases of `runs()` every third of a lease, 15 seconds at most, and interrupts what was lost."""

    def __init__(
        self,
        settings: WorkerSettings,
        identity: Identity,
        *,
        runs: Callable[[], list[Run]],
        draining: Callable[[], bool],
        loop: asyncio.AbstractEventLoop,
        pulse: Pulse,
    ) -> None:
        self._settings = settings
        self._identity = identity
        self._runs = runs
        self._draining = draining
        self._loop = loop
        self._pulse = pulse
        self._stop = threading.Event()
        self._connection: Connection[Any] | None = None
        self._thread = threading.Thread(target=self._keep, name="keeper", daemon=True)

    def register(self) -> None:
        """Write the worker's row: a claim needs it.

        Raises:
            psycopg.OperationalError: PostgreSQL cannot be reached.
        """
        state = "draining" if self._draining() else "running"
        self._connect().execute(
            REGISTER,
            {
                "id": self._identity.id,
                "name": self._identity.name,
                "hostname": self._identity.hostname,
                "pid": self._identity.pid,
                "queues": list(self._identity.queues),
                "slots": self._identity.slots,
                "version": self._identity.version,
                "state": state,
            },
        )

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and take the worker's row away, unless a task's end could not be written."""
        self._stop.set()
        self._thread.join(timeout=self._settings.database_timeout_s)
        try:
            self._connect().execute(GOODBYE, [self._identity.id])
        except (psycopg.Error, OSError) as error:
            log.warning("worker.row_kept", reason=str(error).strip())
        self._disconnect()

    def _keep(self) -> None:
        renewed = time.monotonic()
        while not self._stop.wait(TICK_S):
            self._pulse.beat("keeper")
            now = time.monotonic()
            stuck = [run for run in self._runs() if self._is_stuck(run, now)]
            if stuck:
                self._end_process(stuck)
            if now - renewed >= min(self._settings.lease_s / 3, HEARTBEAT_S):
                renewed = now if self._renew() else renewed + TICK_S

    def _is_stuck(self, run: Run, now: float) -> bool:
        """Whether a handler ignored its interrupt, or blocks the loop so that nobody could interrupt it."""
        return run.task is not None and (run.stuck(now) or run.overdue_s(now) > HARD_GRACE_S)

    def _renew(self) -> bool:
        runs = [run for run in self._runs() if run.interrupted is not Interrupt.LOST]
        try:
            self.register()
            if runs:
                claims = [run.claimed for run in runs]
                held = leases.renew(self._connect(), claims, worker=self._identity.id, lease_s=self._settings.lease_s)
                self._tell(runs, {row.key for row in held})
        except (psycopg.Error, OSError) as error:
            log.warning("renewal.failed", leases=len(runs), reason=str(error).strip())
            self._disconnect()
            return False
        return True

    def _tell(self, runs: Sequence[Run], held: set[AttemptKey]) -> None:
        for run in runs:
            if run.claimed.key not in held and run.task is not None:
                log.warning("lease.lost", task_id=str(run.task_id))
                self._loop.call_soon_threadsafe(run.interrupt, Interrupt.LOST)

    def _end_process(self, stuck: Sequence[Run]) -> None:
        """Release every other task, end the stuck ones as what they were interrupted for, and leave the process."""
        finished = []
        for run in self._runs():
            reason = (run.interrupted or Interrupt.TIMEOUT) if run in stuck else Interrupt.SHUTDOWN
            ending = run.ending_of_interrupt(reason)
            if run.task is not None and ending is not None:
                finished.append(Finished(run.claimed, ending))
        log.critical("worker.stuck", tasks=[str(run.task_id) for run in stuck], released=len(finished) - len(stuck))
        try:
            leases.finish_blocking(self._connect(), finished, worker=self._identity.id)
        except (psycopg.Error, OSError) as error:
            log.error("release.failed", reason=str(error).strip())
        os._exit(STUCK_STATUS)

    def _connect(self) -> Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = connect_blocking(self._settings, service="keeper")
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
