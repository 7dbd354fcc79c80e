"""Passwords: hashed away from the event loop, by processes that a bounded pool of threads waits for."""

import asyncio
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

from taskflow_core.errors import Unavailable
from taskflow_core.hashing import Check, Hasher, Hashing

MIN_CHARACTERS = 8
MAX_CHARACTERS = 128
MAX_HASHERS = 4
MAX_WAITING = 64
DEAR_ROUNDS = 10  # a hash of fewer takes no longer than a process does to start
NOBODY = "the password of an account that does not exist"


class Passwords:
    """Hashes and checks passwords. `rounds` is bcrypt's cost: 2^rounds iterations."""

    def __init__(self, *, rounds: int) -> None:
        threads = _at_once()
        self._own = Hashing(rounds=rounds)
        self._hashers = [Hasher(rounds=rounds) for _ in range(threads if rounds >= DEAR_ROUNDS else 0)]
        self._idle: SimpleQueue[Hasher] = SimpleQueue()
        for hasher in self._hashers:
            self._idle.put(hasher)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="passwords")
        self._waiting = 0
        self._nobody = self._pool.submit(self._ask, NOBODY)

    async def hash(self, password: str) -> str:
        """Return the hash of a new password.

        Raises:
            Unavailable: too many others wait already.
        """
        return str(await self._run(password))

    async def check(self, password: str, stored: str | None) -> Check:
        """Compare a password with a stored hash; None, for an unknown account, takes as long and is never right.

        Raises:
            Unavailable: too many others wait already.
        """
        nobody = await asyncio.wrap_future(self._nobody)
        checked = Check(*await self._run(password, stored or nobody))
        return checked if stored else Check(False)

    def close(self) -> None:
        """Let the threads end after what they are doing, and end the processes."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for hasher in self._hashers:
            hasher.close()

    async def _run(self, *asked: str) -> Any:
        if self._waiting >= MAX_WAITING:
            raise Unavailable("too many passwords are being checked; try again in a moment")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._ask, *asked)
        finally:
            self._waiting -= 1

    def _ask(self, *asked: str) -> Any:
        if not self._hashers:
            return self._own.answer(asked)
        hasher = self._idle.get_nowait()  # there are as many as threads
        try:
            return hasher.answer(asked)
        finally:
            self._idle.put(hasher)


def _at_once() -> int:
    """Return how many hashes are made at once: one processor is left to the requests."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return min(MAX_HASHERS, max(1, cores - 1))
