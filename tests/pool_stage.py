"""A pool on a real Valkey: the scaler, pods as a test plays them, and the workers in them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from pydantic import SecretStr
from redis.asyncio import Redis

from pods import FakeCluster, Pod, Worker
from taskflow_core.beacons import BEACON_KEY, DRAIN_KEY
from taskflow_core.clock import utc_now
from taskflow_core.queue import QUEUE_KEY, job_id
from taskflow_operator.scaler import PoolReport, PoolScaler
from waiting import eventually_async


class Stage:
    """A pool: its cluster, its scaler, and the workers in its pods."""

    def __init__(self, redis: Redis, url: SecretStr) -> None:
        self.redis = redis
        self.workers: dict[str, Worker] = {}
        self.cluster = FakeCluster({}, 0)
        self.scaler = PoolScaler(self.cluster, url)
        self.tasks: list[asyncio.Task[None]] = []

    def pod(self, name: str, *, held: int | None = 0, **fields: Any) -> Pod:
        """Add a pod; its worker holds so many tasks, or there is none."""
        pod = self.cluster.pods[name] = Pod(name, born=len(self.cluster.pods), **fields)
        self.cluster.replicas = len(self.cluster.pods)
        if held is not None:
            worker = self.workers[name] = Worker(self.redis, name, ["default"])
            worker.held = held
            self.tasks += [asyncio.create_task(worker.shine()), asyncio.create_task(self._listen(worker))]
        return pod

    async def _listen(self, worker: Worker) -> None:
        while worker.light.lit:
            worker.held += len(await worker.inbox.take(1))

    async def lit(self) -> None:
        """Wait until every beacon is as it should be."""

        async def all_lit() -> bool:
            return all([await self.redis.exists(BEACON_KEY + name) for name in self.workers])

        await eventually_async(all_lit)

    async def push(self, count: int, *, age_s: float = 0, lane: str = "default") -> list[UUID]:
        """Put so many deliveries into a lane."""
        moment = utc_now() - timedelta(seconds=age_s)
        ids = [uuid4() for _ in range(count)]
        await self.redis.rpush(QUEUE_KEY + lane, *(job_id(id_, moment) for id_ in ids))
        return ids

    async def flags(self) -> set[str]:
        """Return the workers whose drain flag stands."""
        return {key.decode().removeprefix(DRAIN_KEY) async for key in self.redis.scan_iter(DRAIN_KEY + "*")}

    async def tick(self, *, at: datetime | None = None, **view: Any) -> PoolReport:
        """Let the scaler work once."""
        return await self.scaler.tick(self.cluster.view(**view), at or utc_now())


@asynccontextmanager
async def stage_on(redis_url: str) -> AsyncIterator[Stage]:
    """Yield a pool without pods on an emptied Valkey."""
    redis = Redis.from_url(redis_url)
    await redis.flushall()
    stage = Stage(redis, SecretStr(redis_url))
    try:
        yield stage
    finally:
        for worker in stage.workers.values():
            await worker.light.put_out()
        for task in stage.tasks:
            task.cancel()
        await asyncio.gather(*stage.tasks, return_exceptions=True)
        await stage.scaler.close()
        await redis.aclose()


async def until(check: Callable[[], bool]) -> None:
    """Wait for what the loop's own tasks bring about."""

    async def look() -> bool:
        return check()

    await eventually_async(look)
