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

PATIENCE_S = 3.0  # so long a hash may wait for time that nobody wants, ten times what it takes
BUSY_S = 10.0  # after it got none: so long it takes a share, a third of what each of the others has
MOST_S = 30.0
LAST, SHARE = 19, 5  # niceness
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
    """A process that hashes for one thread at a time; the thread does it when no process can."""

    def __init__(self, *, rounds: int) -> None:
        self._rounds = rounds
        self._own = Hashing(rounds=rounds)
        self._process: subprocess.Popen[bytes] | None = None
        self._niceness = LAST
        self._busy_until = 0.0
        self._lock = threading.Lock()
        self._closed = False

    def answer(self, asked: Sequence[str]) -> Any:
        """Return what Hashing answers.

        Raises:
            Unavailable: it is closed.
        """
        line = orjson.dumps(asked) + b"\n"
        with self._lock:
            for niceness, patience_s in ((LAST, PATIENCE_S), (SHARE, MOST_S)):
                if niceness == LAST and time.monotonic() < self._busy_until:
                    continue
                try:
                    return orjson.loads(self._ask(line, niceness, patience_s))
                except (OSError, orjson.JSONDecodeError):  # it died, got no time, or cannot be started
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

    def _ask(self, line: bytes, niceness: int, patience_s: float) -> bytes:
        process = self._running(niceness)
        to, back = cast("Any", process.stdin), cast("Any", process.stdout)
        to.write(line)
        to.flush()
        with selectors.DefaultSelector() as answered:
            answered.register(back, selectors.EVENT_READ)
            return cast("bytes", back.readline()) if answered.select(patience_s) else b""

    def _running(self, niceness: int) -> "subprocess.Popen[bytes]":
        if self._closed:
            raise OSError("closed")
        if self._niceness != niceness:
            self._end()
            self._niceness = niceness
        if self._process is None:
            self._process = subprocess.Popen(  # noqa: S603 - this very module
                [sys.executable, "-m", "taskflow_core.hashing", str(self._rounds), str(niceness)],
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
    rounds, niceness = map(int, sys.argv[1:])
    _step_back(niceness)
    hashing = Hashing(rounds=rounds)
    for line in sys.stdin.buffer:
        answer = hashing.answer(orjson.loads(line))
        sys.stdout.buffer.write(orjson.dumps(answer if isinstance(answer, str) else list(answer)) + b"\n")
        sys.stdout.buffer.flush()


def _step_back(niceness: int) -> None:
    """Leave the processor to others: to all of them, or most of it."""
    os.nice(niceness)
    if sys.platform == "linux":
        with suppress(OSError):  # a sandbox may forbid it, and a kernel need not group by sessions
            AUTOGROUP.write_text(str(niceness))
        if niceness == LAST:
            with suppress(OSError):
                os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


if __name__ == "__main__":
    main()
