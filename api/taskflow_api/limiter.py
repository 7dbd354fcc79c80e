"""How many requests an owner may send: a token bucket for each, in Redis, drawn from by all API processes.

A process takes tokens in small lots, a tenth of a second's worth, and spends them on its own: most requests cost no
round trip. A lot that is not spent within a second is forgotten. While Redis is away each process keeps the limit by
itself.
"""

import asyncio
import math
import time
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from redis.asyncio import Redis
from redis.exceptions import RedisError

from taskflow_core.errors import RateLimited
from taskflow_core.logs import get_logger

WINDOW_S = 60
LOTS = 600  # a minute's tokens, divided by this, are a lot
LOT_KEPT_S = 1.0
TAKE_TIMEOUT_S = 1.0
AWAY_S = 2.0  # after a failure Redis is not asked for so long
MAX_OWNERS = 10_000
KEY = "taskflow:requests:"
NAME = "requests"

# KEYS: the bucket. ARGV: tokens of a window, the window in ms, tokens wanted. Answers: granted, left.
TAKE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local full, window, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local bucket = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens = tonumber(bucket[1]) or full
tokens = math.min(full, tokens + math.max(0, now - (tonumber(bucket[2]) or now)) * full / window)
local granted = math.min(wanted, math.floor(tokens))
redis.call('HSET', KEYS[1], 'tokens', tokens - granted, 'at', now)
redis.call('PEXPIRE', KEYS[1], window)
return {granted, math.floor(tokens - granted)}
"""

log = get_logger(__name__)


@dataclass(slots=True)
class _Owner:
    """What this process may spend for an owner, and what it knows of their bucket."""

    lot: int = 0
    until: float = 0.0
    left: float = 0.0
    at: float = 0.0
    denied_until: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def spend(self, now: float) -> bool:
        """Take one token of the lot, if there is one."""
        if self.lot < 1 or now >= self.until:
            return False
        self.lot -= 1
        return True


class RequestLimiter:
    """Lets each owner send `per_minute` requests, all at once if they like; 0 is no limit."""

    def __init__(self, redis: "Redis", *, per_minute: int) -> None:
        self._redis = redis
        self._limit = per_minute
        self._lot = max(1, per_minute // LOTS)
        self._owners: dict[UUID, _Owner] = {}
        self._away_until = 0.0
        self.policy = f'"{NAME}";q={per_minute};w={WINDOW_S}'

    async def enter(self, state: dict[str, Any], owner_id: UUID) -> None:
        """Count a request, and leave what the answer's RateLimit headers say in the request's state.

        Raises:
            RateLimited: the owner has sent too many.
        """
        if not self._limit:
            return
        owner = self._owners.get(owner_id) or self._remember(owner_id)
        may = owner.spend(time.monotonic()) or await self._refill(owner, owner_id)
        state["rate_limit"] = (self._standing(owner), self.policy)
        if not may:
            wait_s = math.ceil(WINDOW_S / self._limit)
            raise RateLimited(f"at most {self._limit} requests a minute; slow down", retry_after_s=wait_s)

    def _standing(self, owner: _Owner) -> str:
        left = int(owner.left) + owner.lot
        return f'"{NAME}";r={left};t={math.ceil((self._limit - left) * WINDOW_S / self._limit)}'

    def _remember(self, owner_id: UUID) -> _Owner:
        while len(self._owners) >= MAX_OWNERS:
            self._owners.pop(next(iter(self._owners)))
        owner = self._owners[owner_id] = _Owner(left=self._limit, at=time.monotonic())
        return owner

    async def _refill(self, owner: _Owner, owner_id: UUID) -> bool:
        """Get another lot, one request at a time, and spend one token of it."""
        async with owner.lock:
            now = time.monotonic()
            if owner.spend(now):
                return True
            if now < owner.denied_until:  # nobody is asked on behalf of a flood
                return False
            granted, owner.left = await self._take(owner, owner_id, now)
            owner.lot, owner.at, owner.until = granted, now, now + LOT_KEPT_S
            owner.denied_until = now if granted else now + min(LOT_KEPT_S, WINDOW_S / self._limit)
            return owner.spend(now)

    async def _take(self, owner: _Owner, owner_id: UUID, now: float) -> tuple[int, float]:
        if now >= self._away_until:
            try:
                async with asyncio.timeout(TAKE_TIMEOUT_S):
                    granted, left = await self._redis.eval(
                        TAKE, 1, f"{KEY}{owner_id}", self._limit, WINDOW_S * 1000, self._lot
                    )
            except (RedisError, OSError, TimeoutError) as error:
                log.warning("limiter.local", reason=str(error) or type(error).__name__)
                self._away_until = now + AWAY_S
            else:
                return int(granted), float(left)
        left = min(self._limit, owner.left + (now - owner.at) * self._limit / WINDOW_S)
        granted = min(self._lot, int(left))
        return granted, left - granted
