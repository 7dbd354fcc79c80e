"""A loop for each cluster, woken by the watches or by its interval; what fails in one does not stop another."""

import asyncio
import contextlib
import math
import random
import time
from collections.abc import Callable

from taskflow_core.logs import get_logger
from taskflow_core.probes import Pulse
from taskflow_operator import metrics
from taskflow_operator.cluster import ApiFailure, NotLeading
from taskflow_operator.reconcile import Gone, Reconciler
from taskflow_operator.store import Place

RECONCILE_TIMEOUT_S = 45.0
MAX_BACKOFF_S = 60.0
LEAST_PAUSE_S = 0.1  # a burst of events is one look
FIRST_LOOKS = 16  # at a time: those of a thousand clusters would starve each other, and the lease
SLACK_S = 15.0  # a look that is so late beyond its own timeout will not come

log = get_logger(__name__)

ReconcilerMaker = Callable[[Place], Reconciler | None]


class Loop:
    """Looks after one cluster until it is gone."""

    def __init__(self, reconciler: Reconciler, may_write: Callable[[], bool], first_looks: asyncio.Semaphore) -> None:
        self._reconciler = reconciler
        self._may_write = may_write
        self._failures = 0
        self._first_looks = first_looks
        self.wake = asyncio.Event()
        self.due_at = math.inf

    async def run(self) -> None:
        """Look, wait, look again."""
        try:
            async with self._first_looks:
                self.due_at = time.monotonic()
                wait_s = await self._look()
            while True:
                self.due_at = time.monotonic() + wait_s
                await asyncio.sleep(min(wait_s, LEAST_PAUSE_S))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self.wake.wait()
                self.wake.clear()
                wait_s = await self._look()
        except Gone:
            log.info("cluster.gone", namespace=self._reconciler.place.namespace, cluster=self._reconciler.place.name)
        finally:
            await self._reconciler.close()

    async def _look(self) -> float:
        """Reconcile once; return the seconds to wait, which grow while that fails."""
        place = self._reconciler.place
        started = time.monotonic()
        try:
            if not self._may_write():
                return 1.0
            async with asyncio.timeout(RECONCILE_TIMEOUT_S):
                wait_s = await self._reconciler.reconcile()
        except Gone:
            raise
        except NotLeading as reason:
            log.warning("reconcile.fenced", namespace=place.namespace, cluster=place.name, reason=str(reason))
            return 1.0
        except ApiFailure as failure:
            self._count("api", reason=str(failure))
        except TimeoutError:
            self._count("timeout", reason=f"a look took more than {RECONCILE_TIMEOUT_S:.0f} s")
        except Exception as error:
            metrics.ERRORS.labels("bug").inc()
            self._failures += 1
            log.exception(
                "reconcile.crashed", namespace=place.namespace, cluster=place.name, error=type(error).__name__
            )
        else:
            self._failures = 0
            metrics.RECONCILE.observe(time.monotonic() - started)
            return wait_s * random.uniform(0.95, 1.05)  # noqa: S311 - jitter
        return min(MAX_BACKOFF_S, 2.0 ** min(self._failures, 6)) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter

    def _count(self, kind: str, *, reason: str) -> None:
        self._failures += 1
        metrics.ERRORS.labels(kind).inc()
        place = self._reconciler.place
        log.warning("reconcile.failed", namespace=place.namespace, cluster=place.name, reason=reason)


class Loops:
    """The loops of all clusters."""

    def __init__(self, make: ReconcilerMaker, *, may_write: Callable[[], bool], pulse: Pulse) -> None:
        self._make = make
        self._may_write = may_write
        self._pulse = pulse
        self._first_looks = asyncio.Semaphore(FIRST_LOOKS)
        self._running: dict[Place, tuple[Loop, asyncio.Task[None]]] = {}

    def poke(self, place: Place) -> None:
        """Wake the loop of a cluster; start one when there is none and the cluster exists."""
        known = self._running.get(place)
        if known is not None and not known[1].done():
            known[0].wake.set()
            return
        reconciler = self._make(place)
        if reconciler is None:
            self._running.pop(place, None)
            return
        loop = Loop(reconciler, self._may_write, self._first_looks)
        task = asyncio.create_task(loop.run(), name=f"cluster {place.namespace}/{place.name}")
        task.add_done_callback(lambda _: self._ended(place))
        self._running[place] = (loop, task)
        metrics.CLUSTERS.set(len(self._running))

    def _ended(self, place: Place) -> None:
        """Look whether another cluster of the same name has taken the place."""
        self._running.pop(place, None)
        metrics.CLUSTERS.set(len(self._running))
        self.poke(place)

    async def watch_over(self) -> None:
        """Beat the pulse for ever, as long as no loop is overdue."""
        while True:
            now = time.monotonic()
            if all(now - loop.due_at < RECONCILE_TIMEOUT_S + SLACK_S for loop, _ in self._running.values()):
                self._pulse.beat("reconcile")
            await asyncio.sleep(1.0)

    async def stop(self) -> None:
        """End all loops."""
        tasks = [task for _, task in self._running.values()]
        self._make = lambda _: None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
