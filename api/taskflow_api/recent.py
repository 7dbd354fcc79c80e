"""Answers that are dear to make: each is kept for a moment, and made by one request at a time."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar, cast

T = TypeVar("T")
PATIENCE_S = 10.0


class Recent:
    """Keeps at most `most` answers, the newest, each for `keep_s` seconds."""

    def __init__(self, *, keep_s: float, most: int = 1000) -> None:
        self._keep_s = keep_s
        self._most = most
        self._kept: dict[Hashable, tuple[float, Any]] = {}
        self._making: dict[Hashable, asyncio.Lock] = {}

    async def get(self, key: Hashable, make: Callable[[], Awaitable[T]]) -> T:
        """Return the answer of that key, or make it.

        Raises:
            TimeoutError: others have been making it for PATIENCE_S.
        """
        if (kept := self._fresh(key)) is not None:
            return cast("T", kept)
        lock = self._making.setdefault(key, asyncio.Lock())
        async with asyncio.timeout(PATIENCE_S):
            await lock.acquire()
        try:
            if (kept := self._fresh(key)) is not None:
                return cast("T", kept)
            made = await make()
            self._keep(key, made)
            return made
        finally:
            lock.release()
            if not lock.locked():
                self._making.pop(key, None)

    def _fresh(self, key: Hashable) -> object | None:
        until, answer = self._kept.get(key, (0.0, None))
        return answer if time.monotonic() < until else None

    def _keep(self, key: Hashable, answer: object) -> None:
        self._kept.pop(key, None)
        self._kept[key] = (time.monotonic() + self._keep_s, answer)
        while len(self._kept) > self._most:
            self._kept.pop(next(iter(self._kept)))
