"""A throttle on failed logins and on registrations: fixed windows in Redis, without it in this process."""

import hashlib
import time
from collections.abc import Iterable
from typing import NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError

from taskflow_core.errors import TooMany
from taskflow_core.logs import get_logger

WINDOW_S = 60
PER_ACCOUNT = 10
PER_ADDRESS = 100
MAX_REMEMBERED = 10_000

log = get_logger(__name__)


class Bucket(NamedTuple):
    """A counter and how far it may go within a window."""

    key: str
    limit: int


class Count(NamedTuple):
    """Where a counter stands, and in how many seconds its window ends."""

    value: int
    ends_in_s: int


class Throttle:
    """Counts a login before it is tried, so that parallel guesses count too, and takes it back unless it was wrong.

    Registrations count whatever comes of them; an address may try `registrations` a minute, 0 is no limit.
    """

    def __init__(self, redis: "Redis", *, registrations: int) -> None:
        self._redis = redis
        self._registrations = registrations
        self._local: dict[str, tuple[int, float]] = {}

    async def register(self, address: str) -> None:
        """Count a registration.

        Raises:
            TooMany: this address has tried too many within the window.
        """
        if self._registrations:
            bucket = Bucket(f"taskflow:register:address:{address}", self._registrations)
            await self._count([bucket], "too many accounts are registered from your address; wait a little")

    async def enter(self, *, account: str, address: str) -> None:
        """Count a login.

        Raises:
            TooMany: this account or this address has failed too often within the window.
        """
        await self._count(_buckets(account, address), "too many failed logins; wait a little")

    async def take_back(self, *, account: str, address: str) -> None:
        """Uncount an attempt that was right, or that could not be tried: only failures count."""
        await self._add(_buckets(account, address), -1)

    async def _count(self, buckets: list[Bucket], refusal: str) -> None:
        for bucket, count in zip(buckets, await self._add(buckets, 1), strict=True):
            if count.value > bucket.limit:
                raise TooMany(refusal, retry_after_s=count.ends_in_s)

    async def _add(self, buckets: Iterable[Bucket], step: int) -> list[Count]:
        pipe = self._redis.pipeline(transaction=True)
        for bucket in buckets:
            pipe.set(bucket.key, 0, ex=WINDOW_S, nx=True)
            pipe.incrby(bucket.key, step)
            pipe.ttl(bucket.key)
        try:
            replies = await pipe.execute()
        except (RedisError, OSError) as error:
            log.warning("throttle.local", reason=str(error) or type(error).__name__)
            return [self._add_local(bucket.key, step) for bucket in buckets]
        return [Count(int(replies[at + 1]), max(1, int(replies[at + 2]))) for at in range(0, len(replies), 3)]

    def _add_local(self, key: str, step: int) -> Count:
        now = time.monotonic()
        value, end = self._local.pop(key, (0, 0.0))
        if end <= now:
            value, end = 0, now + WINDOW_S
        if len(self._local) >= MAX_REMEMBERED:
            self._local.pop(next(iter(self._local)))
        self._local[key] = (value + step, end)
        return Count(value + step, max(1, round(end - now)))


def _buckets(account: str, address: str) -> list[Bucket]:
    # Redis needs no list of our users' addresses.
    digest = hashlib.sha256(account.encode()).hexdigest()[:32]
    return [
        Bucket(f"taskflow:login:account:{digest}", PER_ACCOUNT),
        Bucket(f"taskflow:login:address:{address}", PER_ADDRESS),
    ]
