"""Drain flags: a token a victim, that expires by itself. Only the operator that raised a flag may move it.

Each step is one script a flag, so that two operators at a hand-over never count each other's flags as theirs.
"""

import asyncio
import secrets
import time
from collections.abc import Collection, Iterable, Sequence

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import RedisError

from taskflow_core.beacons import BELL_KEY, DRAIN_KEY, Beacon
from taskflow_operator.signals import TIMEOUT_S, Signals, Unreadable

ACK_S = 2.0
ACK_POLL_S = 0.05
RING = (
    "if redis.call('LLEN', KEYS[2]) == 0 then redis.call('RPUSH', KEYS[2], ARGV[1]) end "
    "redis.call('EXPIRE', KEYS[2], ARGV[2]) return 1"
)
RAISE = f"if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'EX', ARGV[2]) then return 0 end {RING}"
HOLD = f"if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end redis.call('EXPIRE', KEYS[1], ARGV[2]) {RING}"
LOWER = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1], KEYS[2]) return 1 end return 0"


class Drain:
    """The flags that this operator raised for one pool: `tokens`, by pod."""

    def __init__(self, redis: Redis, signals: Signals) -> None:
        self.tokens: dict[str, str] = {}
        self._redis = redis
        self._signals = signals

    async def hold(self, pods: Sequence[str], *, ttl_s: int) -> list[str]:
        """Raise the flags of these pods, or keep those up that are; return the pods whose flag is ours now.

        Raises:
            Unreadable: Redis is away or too slow.
        """
        new = [pod for pod in pods if pod not in self.tokens]
        self.tokens |= {pod: secrets.token_hex(8) for pod in new}
        answers = await self._run([(pod, RAISE if pod in new else HOLD) for pod in pods], ttl_s)
        for pod, answer in zip(pods, answers, strict=True):
            if not answer:  # it expired, or another operator has raised one
                del self.tokens[pod]
        return [pod for pod in pods if pod in self.tokens]

    async def acknowledged(self, pods: Sequence[str], *, empty: Collection[str]) -> list[str]:
        """Wait up to two seconds until these workers obey their flags and hold nothing; return those that do.

        A pod in `empty` that has no beacon needs not answer: no worker runs there, and one that starts now looks at its
        flag before its first pop.

        Raises:
            Unreadable: Redis is away or too slow.
        """
        deadline = time.monotonic() + ACK_S
        while True:
            beacons = await self._signals.beacons(pods)
            ready = [pod for pod in pods if self._obeys(pod, beacons[pod], empty)]
            if len(ready) == len(pods) or time.monotonic() > deadline:
                return ready
            await asyncio.sleep(ACK_POLL_S)

    async def lower(self, pods: Iterable[str]) -> None:
        """Let these workers go on; a failure leaves the flags to their expiry."""
        known = [pod for pod in pods if pod in self.tokens]
        try:
            await self._run([(pod, LOWER) for pod in known], 1)
        except Unreadable:
            return
        finally:
            self.forget(known)

    async def take_back(self, pods: Sequence[str]) -> None:
        """Lower every flag over these pods, whoever raised it: those of an operator that led before this one.

        Raises:
            Unreadable: Redis is away or too slow.
        """
        pipe = self._redis.pipeline(transaction=False)
        for pod in pods:
            pipe.delete(DRAIN_KEY + pod, BELL_KEY + pod)
        await self._execute(pipe)

    def forget(self, pods: Iterable[str]) -> None:
        """Leave these flags up until they expire: their pods are going."""
        for pod in list(pods):
            self.tokens.pop(pod, None)

    def _obeys(self, pod: str, beacon: Beacon | None, empty: Collection[str]) -> bool:
        if beacon is None:
            return pod in empty
        return beacon.busy == 0 and beacon.drain == self.tokens.get(pod)

    async def _run(self, steps: Sequence[tuple[str, str]], ttl_s: int) -> list[int]:
        pipe = self._redis.pipeline(transaction=False)
        for pod, script in steps:
            pipe.eval(script, 2, DRAIN_KEY + pod, BELL_KEY + pod, self.tokens[pod], str(ttl_s))
        return await self._execute(pipe)

    async def _execute(self, pipe: Pipeline) -> list[int]:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return [int(answer) for answer in await pipe.execute()]
        except (RedisError, OSError) as error:
            words = str(error) or type(error).__name__
            raise Unreadable("RedisUnreachable", f"drain flags cannot be set: {words}") from error
