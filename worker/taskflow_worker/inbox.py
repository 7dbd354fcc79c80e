"""Where a worker's tasks come from: RQ's lists in Redis, or the table itself while Redis is away."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from typing import cast
from uuid import UUID

from redis.asyncio import Redis
from redis.exceptions import RedisError

from taskflow_core import leases
from taskflow_core.lanes import lanes_of, queue_of
from taskflow_core.links import Link
from taskflow_core.logs import get_logger
from taskflow_core.queue import JOB_KEY, QUEUE_KEY, Delivery, parse_job_id
from taskflow_worker.beacon import DrainFlag
from taskflow_worker.metrics import WorkerMetrics

BLOCK_S = 1.0
DRAINED_S = 0.25  # between two looks at a drain flag that stands
DEGRADED_AFTER_S = 5.0
FAIRNESS = 8  # one pop in so many takes the lanes in a random order, so that a busy one never starves the others

log = get_logger(__name__)


class Inbox:
    """Pops deliveries, up to the number of free slots in one call, and puts back what cannot be run.

    The bell of the worker's drain flag is the first list of every pop: once it rang, no pop returns a task.
    """

    def __init__(
        self,
        redis: Redis,
        queues: Sequence[str],
        metrics: WorkerMetrics,
        *,
        flag: DrainFlag,
        drained: Callable[[], None],
    ) -> None:
        self.redis = redis
        self.suspended = False
        self._metrics = metrics
        self._flag = flag
        self._drained = drained
        self.queues = list(queues)
        self.paused: frozenset[str] = frozenset()
        self._origin: dict[UUID, list[tuple[str, str]]] = {}  # the lane and job id of each delivery
        self._away_since: float | None = None
        self._pops = 0

    @property
    def degraded(self) -> bool:
        """Whether Redis has been away for so long that tasks are taken from the table."""
        return self._away_since is not None and time.monotonic() - self._away_since > DEGRADED_AFTER_S

    async def take(self, limit: int) -> list[UUID]:
        """Wait up to a second for deliveries and return the ids of at most `limit` tasks; none while drained.

        Raises:
            redis.exceptions.RedisError, OSError: Redis is away.
        """
        try:
            popped = await self._pop(limit)
        except (RedisError, OSError):
            self._flag.unsure = True
            self._away_since = self._away_since or time.monotonic()
            raise
        if self._away_since is not None:
            log.info("redis.back", away_s=round(time.monotonic() - self._away_since, 1))
            self._away_since = None
        if not popped:
            return []
        key, raw_ids = popped
        lane = key.decode().removeprefix(QUEUE_KEY)
        taken = [delivery.task_id for raw in raw_ids if (delivery := self._accept(lane, raw)) is not None]
        if queue_of(lane) in self.paused:  # paused while this pop was waiting
            await self.give_back(taken)
            return []
        return taken

    async def _pop(self, limit: int) -> tuple[bytes, list[bytes]] | None:
        if self._flag.token is not None or self._flag.unsure:
            stood = self._flag.token
            raised = await self._flag.look()
            if self._flag.token != stood:
                self._drained()
            if raised:
                await asyncio.sleep(DRAINED_S)
                return None
        keys = [self._flag.bell, *(QUEUE_KEY + lane for lane in self._lanes())]
        popped = await self.redis.blmpop(BLOCK_S, len(keys), *keys, direction="LEFT", count=limit)
        if not popped:
            return None
        key, raw_ids = cast("tuple[bytes, list[bytes]]", popped)
        if key.decode() == self._flag.bell:
            self._flag.unsure = True
            return None
        return key, raw_ids

    async def take_from_table(self, link: Link, limit: int) -> list[UUID]:
        """Return tasks that are due, straight from the table; none while drained."""
        if self._flag.raised:
            return []
        return await leases.due(await link.get(), self._lanes(), limit=limit)

    async def forget(self, task_ids: Sequence[UUID]) -> None:
        """Delete the jobs of deliveries that were claimed or refused; a failure leaves them to their expiry."""
        keys = [JOB_KEY + job_id for task_id in task_ids for _, job_id in self._origin.pop(task_id, ())]
        if keys:
            try:
                await self.redis.unlink(*keys)
            except (RedisError, OSError) as error:
                log.warning("jobs.kept", jobs=len(keys), reason=str(error))

    async def give_back(self, task_ids: Sequence[UUID]) -> None:
        """Put deliveries back at the head of their queues, in their order; the scheduler finds what fails here."""
        pipe = self.redis.pipeline(transaction=False)
        for task_id in reversed(task_ids):
            for lane, job_id in self._origin.pop(task_id, ()):
                pipe.lpush(QUEUE_KEY + lane, job_id)
        try:
            await pipe.execute()
        except (RedisError, OSError) as error:
            log.warning("deliveries.dropped", deliveries=len(task_ids), reason=str(error))

    def _lanes(self) -> list[str]:
        self._pops += 1
        lanes = lanes_of([queue for queue in self.queues if queue not in self.paused and not self.suspended])
        if self._pops % FAIRNESS == 0:
            random.shuffle(lanes)
        return lanes

    def _accept(self, lane: str, raw: bytes) -> Delivery | None:
        delivery = parse_job_id(raw)
        if delivery is None:
            self._metrics.refused()
            log.warning("delivery.refused", lane=lane, job_id=raw[:100].decode("ascii", "replace"))
            return None
        self._origin.setdefault(delivery.task_id, []).append((lane, delivery.job_id))
        return delivery
