"""Deliveries in Redis, in RQ's own format: `rq info`, rq-dashboard and KEDA read them as they are.

A delivery is a job id in the list `rq:queue:<lane>` (lanes.py) with a small hash beside it. The id is
`<task id>-<microseconds of enqueued_at, hex>`: a worker needs no second read, the head of a list tells the age of
everything before it (the watermark of the scheduler), and no two deliveries of a task share an id, because RQ refuses
one it has seen. Redis may lose any of it: the task's row is the outbox.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Protocol
from uuid import UUID

import orjson
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from taskflow_core.logs import get_logger
from taskflow_core.settings import Settings

QUEUE_KEY = "rq:queue:"
JOB_KEY = "rq:job:"
QUEUES_KEY = "rq:queues"
# The function that a stock `rq worker -S json` would call; short, so that the hash stays in its compact encoding.
JOB_DATA = b'["taskflow_worker.job.run",null,[],{}]'
JOB_TTL_S = 7 * 86_400
PUSHED_AT_ONCE = 1000  # Lua's stack holds 8,000
# A job's hash and its place in the list, for many jobs of many lanes: [[lane, [job, moment, job, moment, ...]], ...].
# As commands of their own, or as arguments of their own, they cost the sender and Redis several times more.
ENQUEUE = f"""
for _, of_lane in ipairs(cjson.decode(ARGV[3])) do
  local lane, jobs, ids = of_lane[1], of_lane[2], {{}}
  redis.call('SADD', '{QUEUES_KEY}', '{QUEUE_KEY}' .. lane)
  for at = 1, #jobs, 2 do
    local key, moment = '{JOB_KEY}' .. jobs[at], jobs[at + 1]
    redis.call('HSET', key, 'data', ARGV[1], 'status', 'queued', 'origin', lane,
      'created_at', moment, 'enqueued_at', moment)
    redis.call('EXPIRE', key, ARGV[2])
    ids[#ids + 1] = jobs[at]
    if #ids == {PUSHED_AT_ONCE} or at + 1 == #jobs then
      redis.call('RPUSH', '{QUEUE_KEY}' .. lane, unpack(ids))
      ids = {{}}
    end
  end
end
"""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

log = get_logger(__name__)


class Enqueued(Protocol):
    """A task that is due: what a delivery is made of."""

    @property
    def id(self) -> UUID:
        """The task's id."""

    @property
    def lane(self) -> str:
        """The RQ list it goes to."""

    @property
    def enqueued_at(self) -> datetime | None:
        """When the row was marked as enqueued, or None when it is not due yet."""


class Delivery(NamedTuple):
    """A parsed job id."""

    job_id: str
    task_id: UUID
    enqueued_at: datetime


def job_id(task_id: UUID, enqueued_at: datetime) -> str:
    """Return the id of this delivery of the task."""
    since = enqueued_at - EPOCH
    return f"{task_id}-{(since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds:x}"


def parse_job_id(raw: bytes | str) -> Delivery | None:
    """Return what the id says, or None when it is not one of ours."""
    text = raw.decode("ascii", "replace") if isinstance(raw, bytes) else raw
    try:
        micros = int(text[37:], 16)
        if len(text) < 38 or text[36] != "-" or micros < 0:
            return None
        return Delivery(text, UUID(text[:36]), EPOCH + timedelta(microseconds=micros))
    except (ValueError, OverflowError):
        return None


def connect_redis(settings: Settings, *, max_connections: int = 50) -> Redis:
    """Return a client whose every wait is bounded. It connects on first use and retries nothing by itself."""
    client: Redis = Redis.from_url(
        settings.redis_url.get_secret_value(),
        socket_timeout=settings.redis_timeout_s,
        socket_connect_timeout=settings.redis_timeout_s,
        max_connections=max_connections,
        health_check_interval=15,
        retry=Retry(NoBackoff(), 0),
    )
    return client


class DeliveryQueue:
    """Puts deliveries into Redis and reads the queues' heads; `deferred` is told how many Redis was not there for."""

    def __init__(self, redis: Redis, *, deferred: Callable[[int], None] | None = None) -> None:
        self.redis = redis
        self._deferred = deferred

    async def deliver(self, tasks: Iterable[Enqueued]) -> bool:
        """Enqueue every task that is marked as enqueued, in one round trip.

        Returns False, and logs, when Redis is away: nothing is lost, the scheduler finds the rows.
        """
        lanes: dict[str, list[str | datetime]] = {}
        for task in tasks:
            if (moment := task.enqueued_at) is not None:
                lanes.setdefault(task.lane, []).extend((job_id(task.id, moment), moment))
        if not lanes:
            return True
        jobs = orjson.dumps([*lanes.items()], option=orjson.OPT_UTC_Z)
        try:
            await self.redis.execute_command("EVAL", ENQUEUE, 0, JOB_DATA, JOB_TTL_S, jobs)  # type: ignore[no-untyped-call] # redis-py's
        except (RedisError, OSError) as error:
            waiting = sum(map(len, lanes.values())) // 2
            log.warning("delivery.deferred", tasks=waiting, reason=str(error) or type(error).__name__)
            if self._deferred is not None:
                self._deferred(waiting)
            return False
        return True

    async def withdraw(self, tasks: Iterable[Enqueued]) -> None:
        """Take deliveries out again, as far as Redis is there: a worker that meets one all the same claims by the row.

        Looks through the lists, so it is for few tasks.
        """
        pipe = self.redis.pipeline(transaction=False)
        for task in tasks:
            if task.enqueued_at is not None:
                identifier = job_id(task.id, task.enqueued_at)
                pipe.lrem(QUEUE_KEY + task.lane, 1, identifier)
                pipe.unlink(JOB_KEY + identifier)
        try:
            await pipe.execute()
        except (RedisError, OSError) as error:
            log.warning("delivery.not_withdrawn", reason=str(error) or type(error).__name__)

    async def heads(self, lanes: Sequence[str]) -> dict[str, Delivery | None]:
        """Return the first delivery of each lane that can be read.

        None means the list is empty; a lane whose head is not one of ours is left out.
        """
        pipe = self.redis.pipeline(transaction=False)
        for lane in lanes:
            pipe.lindex(QUEUE_KEY + lane, 0)
        heads: dict[str, Delivery | None] = {}
        for lane, raw in zip(lanes, await pipe.execute(), strict=True):
            head = parse_job_id(raw) if raw is not None else None
            if raw is None or head is not None:
                heads[lane] = head
        return heads

    async def depths(self, lanes: Sequence[str]) -> list[int]:
        """Return how many deliveries each lane holds."""
        pipe = self.redis.pipeline(transaction=False)
        for lane in lanes:
            pipe.llen(QUEUE_KEY + lane)
        return [int(depth) for depth in await pipe.execute()]
