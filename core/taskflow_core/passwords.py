"""Passwords: hashed with bcrypt-sha256, away from the event loop, by a bounded pool of threads.

bcrypt reads 72 bytes and no NUL; bcrypt-sha256 (passlib's version 2: bcrypt of an HMAC-SHA256) has neither limit.
Plain bcrypt and argon2 hashes, from an import, are accepted and replaced at the next login.
"""

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple, ParamSpec, TypeVar, cast

from passlib.context import CryptContext

from taskflow_core.errors import Unavailable

MIN_CHARACTERS = 8
MAX_CHARACTERS = 128
THREADS = 2
MAX_WAITING = 64
NICENESS = 5  # a third of the share that the loop's thread has when both want the processor

P = ParamSpec("P")
T = TypeVar("T")


class Check(NamedTuple):
    """Whether the password was right, and a new hash when the stored one should be replaced."""

    right: bool
    new_hash: str | None = None


class Passwords:
    """Hashes and checks passwords. `rounds` is bcrypt's cost: 2^rounds iterations."""

    def __init__(self, *, rounds: int) -> None:
        self._context = CryptContext(
            schemes=["bcrypt_sha256", "argon2", "bcrypt"],
            deprecated=["argon2", "bcrypt"],
            bcrypt_sha256__rounds=rounds,
        )
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="passwords", initializer=_step_back)
        self._waiting = 0
        self._nobody = self._pool.submit(self._hash, "the password of an account that does not exist")

    async def hash(self, password: str) -> str:
        """Return the hash of a new password.

        Raises:
            Unavailable: too many others wait already.
        """
        return await self._run(self._hash, password)

    async def check(self, password: str, stored: str | None) -> Check:
        """Compare a password with a stored hash; None, for an unknown account, takes as long and is never right.

        Raises:
            Unavailable: too many others wait already.
        """
        nobody = await asyncio.wrap_future(self._nobody)
        checked = await self._run(self._check, password, stored or nobody)
        return checked if stored else Check(False)

    def close(self) -> None:
        """Let the threads end after what they are doing."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._waiting >= MAX_WAITING:
            raise Unavailable("too many passwords are being checked; try again in a moment")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, partial(work, *args, **kwargs))
        finally:
            self._waiting -= 1

    def _check(self, password: str, stored: str) -> Check:
        try:
            right, new_hash = self._context.verify_and_update(password, stored)
        except ValueError:  # the stored hash is of no known kind, or plain bcrypt cannot take this password
            return Check(False)
        return Check(bool(right), new_hash)

    def _hash(self, password: str) -> str:
        return cast("str", self._context.hash(password))


def _step_back() -> None:
    """Give the calling thread a lower priority: requests must not wait for hashing."""
    if sys.platform == "linux":  # where a thread has a priority of its own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
