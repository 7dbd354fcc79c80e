"""A scale-in races with tasks that arrive: no pod goes with a task in its hands, none runs twice, none is lost.

Scaler, flags, beacons, inboxes and Valkey are real; a claim is a dictionary here. In each round tasks arrive at random
moments around a tick. What a worker pops after its pod was deleted would be lost: it is counted. TASKFLOW_RACES says
how many rounds are played (10,000 take three minutes), TASKFLOW_SEED repeats the moments of a run.
"""

import asyncio
import os
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from pydantic import SecretStr
from redis.asyncio import Redis

from pods import FakeCluster, Pod, Worker, at_once, come_back
from taskflow_core.beacons import DRAIN_TTL_S
from taskflow_core.clock import utc_now
from taskflow_core.queue import QUEUE_KEY, job_id
from taskflow_operator.scaler import PoolScaler
from waiting import eventually_async

ROUNDS = int(os.environ.get("TASKFLOW_RACES", "800"))
SEED = int(os.environ.get("TASKFLOW_SEED", random.randrange(2**32)))
POOLS, PODS = 20, 3
FLAGS_EXPIRE_S = DRAIN_TTL_S + 30.0  # a tick that Valkey did not answer in time leaves its flags to their expiry
POLICIES = [at_once(tasksPerSlot=3), at_once(maxReplicas=1)]  # as many as the load needs; one, whatever the load


@dataclass
class Count:
    """What happened in all rounds together."""

    rounds: int = 0
    removed: int = 0
    kept_busy: int = 0
    removed_busy: int = 0
    popped_by_the_dead: int = 0
    runs: Counter[UUID] = field(default_factory=Counter)


class Race:
    """One pool that shrinks and comes back, round after round."""

    def __init__(self, number: int, url: str, count: Count) -> None:
        queue = f"race-{number}"
        names = [f"{queue}-{pod}" for pod in range(PODS)]
        self.redis = Redis.from_url(url)
        self.queue = queue
        self.count = count
        self.chance = random.Random(f"{SEED}-{number}")
        self.pushed: list[UUID] = []
        self.workers = {name: Worker(self.redis, name, [queue]) for name in names}
        self.cluster = FakeCluster({name: Pod(name) for name in names}, PODS)
        self.scaler = PoolScaler(self.cluster, SecretStr(url))
        self.loops = [asyncio.create_task(worker.shine()) for worker in self.workers.values()]
        self.loops += [asyncio.create_task(self.work(worker)) for worker in self.workers.values()]

    async def work(self, worker: Worker) -> None:
        while worker.light.lit:
            taken = await worker.inbox.take(2)
            worker.held += len(taken)
            if taken:
                worker.light.changed()
            for task_id in taken:
                self.count.runs[task_id] += 1
                await asyncio.sleep(self.chance.uniform(0, 0.1))
                worker.held -= 1
            if taken:
                worker.light.changed()

    async def round(self) -> None:
        """Race a tick with a few tasks, see who was deleted in which state, and let them come back."""
        arriving = asyncio.create_task(self.arrive(self.chance.randrange(15)))
        await asyncio.sleep(self.chance.uniform(0, 0.05))
        view = self.cluster.view(queues=[self.queue], policy=self.chance.choice(POLICIES))
        report = await self.scaler.tick(view, utc_now())
        gone = [self.workers[name] for name in self.cluster.deleted]
        self.count.removed += len(gone)
        self.count.removed_busy += sum(worker.held > 0 for worker in gone)
        self.count.kept_busy += report.scaling_limited.reason == "BusyWorkers"
        for worker in gone:
            worker.inbox.deleted = True
        await arriving
        await asyncio.sleep(self.chance.uniform(0, 0.05))
        for worker in gone:
            self.count.popped_by_the_dead += worker.inbox.too_late
            worker.inbox.deleted, worker.inbox.too_late = False, 0
            await come_back(self.redis, worker.identity.hostname)
        self.cluster.revive(Pod(name) for name in self.workers)
        self.count.rounds += 1

    async def arrive(self, tasks: int) -> None:
        for _ in range(tasks):
            await asyncio.sleep(self.chance.uniform(0, 0.03))
            self.pushed.append(uuid4())
            await self.redis.rpush(QUEUE_KEY + self.queue, job_id(self.pushed[-1], utc_now()))

    async def close(self) -> None:
        """End all loops: a task that is only cancelled may go on, when the Redis client swallows that."""
        for worker in self.workers.values():
            await worker.light.put_out()
        await asyncio.gather(*self.loops)
        await self.scaler.close()
        await self.redis.aclose()


async def test_1_no_interleaving_takes_a_busy_worker_away_or_loses_a_task(redis_url: str) -> None:
    """Plays as many rounds as TASKFLOW_RACES says, on twenty pools at a time."""
    async with Redis.from_url(redis_url) as redis:
        await redis.flushall()
    count, began = Count(), time.monotonic()
    races = [Race(number, redis_url, count) for number in range(POOLS)]

    async def play(race: Race) -> None:
        while count.rounds < ROUNDS:
            await race.round()

    async def all_ran() -> bool:
        return len(count.runs) == sum(len(race.pushed) for race in races)

    try:
        await asyncio.gather(*(play(race) for race in races))
        await eventually_async(all_ran, FLAGS_EXPIRE_S)
    finally:
        await asyncio.gather(*(race.close() for race in races))  # each waits for pops that block a second
    pushed = [task_id for race in races for task_id in race.pushed]
    sys.stdout.write(
        f"\nseed {SEED}: {count.rounds} interleavings in {time.monotonic() - began:.0f} s: {len(pushed)} tasks, "
        f"{count.removed} pods removed, {count.kept_busy} times a busy worker was kept, "
        f"{count.removed_busy} removed while busy, {count.popped_by_the_dead} popped by the dead, "
        f"{sum(runs > 1 for runs in count.runs.values())} run twice\n"
    )
    assert (count.removed_busy, count.popped_by_the_dead) == (0, 0)
    assert set(count.runs) == set(pushed)
    assert set(count.runs.values()) == {1}
    assert count.removed > 0
    assert count.kept_busy > 0
