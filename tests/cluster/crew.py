"""Workers in the test's process, in pods that exist in the API alone."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import uuid4

from redis.asyncio import Redis

from cluster.world import Cluster
from pods import Worker
from taskflow_core.beacons import BEACON_KEY, DRAIN_KEY
from taskflow_core.clock import utc_now
from taskflow_core.queue import QUEUE_KEY, job_id
from taskflow_operator.kinds import DEPLOYMENT
from waiting import eventually_async

STARTED = "2026-11-24T12:00:00Z"
RUNNING = {
    "phase": "Running",
    "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": STARTED}],
    "containerStatuses": [
        {
            "name": "worker",
            "image": "example.com/taskflow:1.0",
            "imageID": "",
            "ready": True,
            "restartCount": 0,
            "state": {"running": {"startedAt": STARTED}},
        }
    ],
}


@dataclass
class Crew:
    """Workers of one slot with real inboxes, flags and beacons; `awake` ones pop, hear their bells and answer."""

    redis: Redis
    workers: dict[str, Worker] = field(default_factory=dict)
    awake: dict[str, asyncio.Event] = field(default_factory=dict)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def hire(self, cluster: Cluster, names: Sequence[str]) -> None:
        """Make a pod of the pool and a worker for each name, and wait until all beacons are lit."""
        deployment = await asyncio.to_thread(cluster.get, DEPLOYMENT, "shop-worker")
        assert deployment is not None
        for name in names:
            await asyncio.to_thread(cluster.pod, name, deployment["spec"]["template"]["metadata"]["labels"], RUNNING)
            worker = self.workers[name] = Worker(self.redis, name, ["default"])
            self.awake[name] = asyncio.Event()
            self.awake[name].set()
            self._tasks += [asyncio.create_task(worker.shine()), asyncio.create_task(self._work(worker, name))]

        async def all_lit() -> bool:
            return await self.redis.exists(*(BEACON_KEY + name for name in names)) == len(names)

        await eventually_async(all_lit)

    async def _work(self, worker: Worker, name: str) -> None:
        while worker.light.lit:
            await self.awake[name].wait()
            if worker.held:
                await asyncio.sleep(0.05)
            elif taken := await worker.inbox.take(1):
                worker.held += len(taken)
                worker.light.changed()

    def sleep(self) -> None:
        """Let nobody pop or hear a bell."""
        for event in self.awake.values():
            event.clear()

    def wake(self, *names: str) -> None:
        """Let these go on, or all."""
        for name in names or self.awake:
            self.awake[name].set()

    async def push(self, count: int) -> None:
        """Put so many deliveries into the queue."""
        await self.redis.rpush(QUEUE_KEY + "default", *(job_id(uuid4(), utc_now()) for _ in range(count)))

    def busy(self) -> set[str]:
        """Return the workers that hold a task."""
        return {name for name, worker in self.workers.items() if worker.held}

    def finish(self) -> None:
        """End every task that is held."""
        for worker in self.workers.values():
            worker.held = 0
            worker.light.changed()

    async def flags(self) -> set[str]:
        """Return the workers whose drain flag stands."""
        return {key.decode().removeprefix(DRAIN_KEY) async for key in self.redis.scan_iter(DRAIN_KEY + "*")}

    async def close(self) -> None:
        """Put out the beacons and end the loops."""
        for name, worker in self.workers.items():
            await worker.light.put_out()
            self.awake[name].set()
        await asyncio.gather(*self._tasks)


@asynccontextmanager
async def crew_on(redis_url: str) -> AsyncIterator[Crew]:
    """Yield a crew without workers on an emptied database of Valkey."""
    async with Redis.from_url(redis_url) as redis:
        await redis.flushdb()
        crew = Crew(redis)
        try:
            yield crew
        finally:
            await crew.close()
