"""Hashes of passwords, and the processes that make them in time that nobody else wants.

Processes and not threads: a thread that must wait for the processor may hold the interpreter's lock meanwhile, and then
all requests wait with it; and priorities count only within a session where Linux groups processes by sessions. Run as a
program, this answers each line of its input, and ends with it.
"""

import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, cast

import orjson
from passlib.context import CryptContext

from taskflow_core.errors import Unavailable

BUSY_S = 10.0  # after a process got no time: so long its hashes are made by who asks
AUTOGROUP = Path("/proc/self/autogroup")


class Check(NamedTuple):
    """Whether the password was right, and a new hash when the stored one should be replaced."""

    right: bool
    new_hash: str | None = None


class Hashing:
    """Makes and compares hashes: bcrypt-sha256 (passlib's version 2: bcrypt of an HMAC-SHA256), 2^rounds iterations.

    bcrypt reads 72 bytes and no NUL; this use of it has neither limit. Plain bcrypt and argon2 hashes, from an import,
    are accepted, with a better one to replace them.
    """

    def __init__(self, *, rounds: int) -> None:
        self._context = CryptContext(
            schemes=["bcrypt_sha256", "argon2", "bcrypt"],
            deprecated=["argon2", "bcrypt"],
            bcrypt_sha256__rounds=rounds,
        )

    def answer(self, asked: Sequence[str]) -> Any:
        """Return the hash of (password), or the Check of (password, stored hash)."""
        return self._context.hash(asked[0]) if len(asked) == 1 else self._check(*asked)

    def _check(self, password: str, stored: str) -> Check:
        try:
            right, new_hash = self._context.verify_and_update(password, stored)
        except ValueError:  # the stored hash is of no known kind, or plain bcrypt cannot take this password
            return Check(False)
        return Check(bool(right), new_hash)


class Hasher:
    """A process that hashes for one thread at a time; the thread does it when the process gets no time to."""

    def __init__(self, *, rounds: int, patience_s: float) -> None:
        self._rounds = rounds
        self._patience_s = patience_s
        self._own = Hashing(rounds=rounds)
        self._process: subprocess.Popen[bytes] | None = None
        self._busy_until = 0.0
        self._lock = threading.Lock()
        self._closed = False

    def answer(self, asked: Sequence[str]) -> Any:
        """Return what Hashing answers.

        Raises:
            Unavailable: it is closed.
        """
        if time.monotonic() >= self._busy_until:
            with self._lock:
                try:
                    return orjson.loads(self._ask(orjson.dumps(asked) + b"\n"))
                except (OSError, orjson.JSONDecodeError):  # it died, gets no time, or cannot be started
                    self._end()
                    self._busy_until = time.monotonic() + BUSY_S
        if self._closed:
            raise Unavailable("the server stops")
        return self._own.answer(asked)

    def close(self) -> None:
        """End the process, and let none begin."""
        self._closed = True
        if process := self._process:
            process.kill()  # whoever waits for its answer waits no more
        with self._lock:
            self._end()

    def _ask(self, line: bytes) -> bytes:
        process = self._running()
        to, back = cast("Any", process.stdin), cast("Any", process.stdout)
        to.write(line)
        to.flush()
        with selectors.DefaultSelector() as answered:
            answered.register(back, selectors.EVENT_READ)
            return cast("bytes", back.readline()) if answered.select(self._patience_s) else b""

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._closed:
            raise OSError("closed")
        if self._process is None:
            self._process = subprocess.Popen(  # noqa: S603 - this very module
                [sys.executable, "-m", "taskflow_core.hashing", str(self._rounds)],
                env={"PYTHONPATH": os.pathsep.join(sys.path)},  # it needs no secrets
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()  # reads what is left, closes the pipes and waits


def main() -> None:
    """Answer each line with one."""
    _step_back()
    hashing = Hashing(rounds=int(sys.argv[1]))
    for line in sys.stdin.buffer:
        answer = hashing.answer(orjson.loads(line))
        sys.stdout.buffer.write(orjson.dumps(answer if isinstance(answer, str) else list(answer)) + b"\n")
        sys.stdout.buffer.flush()


def _step_back() -> None:
    """Take the processor only when nobody else wants it."""
    os.nice(19)
    if sys.platform == "linux":
        with suppress(OSError):  # a sandbox may forbid it
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        with suppress(OSError):  # a kernel need not have it
            AUTOGROUP.write_text("19")


if __name__ == "__main__":
    main()
