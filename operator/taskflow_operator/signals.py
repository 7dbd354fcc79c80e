"""What the queues and workers of a pool say in Redis: one pipeline a tick, bounded by two seconds."""

import asyncio
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from taskflow_core.beacons import (
    BEACON_KEY,
    OWNER_KEY,
    OWNER_TTL_S,
    RUNS_KEY,
    Beacon,
    fresh_runs,
    read_beacon,
)
from taskflow_core.lanes import lanes_of, queue_of
from taskflow_core.queue import QUEUE_KEY, parse_job_id

TIMEOUT_S = 2.0
CHECK = ": check that it runs and that the address behind spec.redis.urlSecretRef can be reached from the operator"
CALLBACKS = Redis().response_callbacks  # half of a client's memory: one for all pools, nobody changes it
MIN_RUNS = 20  # fewer say too little about the median


class Unreadable(Exception):
    """The queues cannot be read; `reason` is that of a condition, the text says what to do."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Reading:
    """What Redis said; times in seconds. `beacons` has the pods whose worker tells of itself."""

    waiting: int
    oldest_s: float
    run_s: float | None
    run_id: str
    beacons: Mapping[str, Beacon]


def connect(redis_url: str) -> Redis:
    """Return a client whose every wait is bounded; it connects on first use and retries nothing by itself."""
    client: Redis = Redis.from_url(
        redis_url,
        socket_timeout=TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
        max_connections=10,
        health_check_interval=15,
        retry=Retry(NoBackoff(), 0),
    )
    if client.response_callbacks == CALLBACKS:  # an address may ask for another protocol
        client.response_callbacks = CALLBACKS
    return client


class Signals:
    """Reads the signals of a pool, whose cluster owns its Redis: two clusters would read each other's queues."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._ours = False

    async def read(
        self, uid: str, *, queues: Sequence[str], pods: Sequence[str], now: datetime, with_runs: bool = True
    ) -> Reading:
        """Return what is there now; `uid` is the cluster's, `with_runs` asks for the median run time too.

        Raises:
            Unreadable: Redis is away, too slow, or another cluster's.
        """
        lanes = lanes_of(queues)
        pipe = self._redis.pipeline(transaction=False)
        self._ask_owner(pipe, uid)
        pipe.info("server")
        for lane in lanes:
            pipe.llen(QUEUE_KEY + lane)
            pipe.lindex(QUEUE_KEY + lane, 0)
        for pod in pods:
            pipe.get(BEACON_KEY + pod)
        for queue in queues if with_runs else ():
            pipe.lrange(RUNS_KEY + queue, 0, -1)
        _, owner, server, *answers = await self._execute(pipe)
        self._check_owner(owner, uid)
        heads, rest = answers[: 2 * len(lanes)], answers[2 * len(lanes) :]
        found = {pod: read_beacon(raw) for pod, raw in zip(pods, rest, strict=False)}
        beacons = {pod: beacon for pod, beacon in found.items() if beacon is not None}
        paused = {queue for beacon in beacons.values() for queue in beacon.paused}
        open_ = [index for index, lane in enumerate(lanes) if queue_of(lane) not in paused]
        return Reading(
            waiting=sum(heads[2 * index] for index in open_),
            oldest_s=max((_age_s(heads[2 * index + 1], now) for index in open_), default=0.0),
            run_s=_median(rest[len(pods) :], now),
            run_id=str(server.get("run_id", "")),
            beacons=beacons,
        )

    async def beacons(self, pods: Sequence[str]) -> dict[str, Beacon | None]:
        """Return what these workers say now.

        Raises:
            Unreadable: Redis is away or too slow.
        """
        pipe = self._redis.pipeline(transaction=False)
        for pod in pods:
            pipe.get(BEACON_KEY + pod)
        return {pod: read_beacon(raw) for pod, raw in zip(pods, await self._execute(pipe), strict=True)}

    def _ask_owner(self, pipe: Pipeline, uid: str) -> None:
        if self._ours:
            pipe.expire(OWNER_KEY, OWNER_TTL_S)
        else:
            pipe.set(OWNER_KEY, uid, nx=True, ex=OWNER_TTL_S)
        pipe.get(OWNER_KEY)

    def _check_owner(self, owner: bytes | None, uid: str) -> None:
        self._ours = owner == uid.encode()
        if owner is not None and not self._ours:
            raise Unreadable(
                "RedisShared",
                f"this Redis belongs to the TaskFlowCluster with uid {owner.decode('ascii', 'replace')}: give each "
                "cluster a Redis, or a database number, of its own",
            )

    async def _execute(self, pipe: Pipeline) -> list[Any]:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return list(await pipe.execute())
        except TimeoutError:
            raise Unreadable("RedisTimeout", f"Redis did not answer within {TIMEOUT_S:.0f} s{CHECK}") from None
        except (RedisError, OSError) as error:
            words = str(error).rstrip(".") or type(error).__name__
            raise Unreadable("RedisUnreachable", f"Redis cannot be read: {words}{CHECK}") from error


def _age_s(raw: bytes | None, now: datetime) -> float:
    head = None if raw is None else parse_job_id(raw)
    return 0.0 if head is None else max(0.0, (now - head.enqueued_at).total_seconds())


def _median(lists: Sequence[Sequence[bytes]], now: datetime) -> float | None:
    runs = [seconds for samples in lists for seconds in fresh_runs(samples, now_s=now.timestamp())]
    return statistics.median(runs) if len(runs) >= MIN_RUNS else None
