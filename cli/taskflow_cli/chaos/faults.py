"""Does what the plan says to the running platform, and undoes at the end what would stay."""

import asyncio
import os
import signal
from contextlib import suppress

import psycopg
from redis import Redis
from redis.exceptions import RedisError

from taskflow_cli.chaos.plan import Fault, Kind
from taskflow_cli.embedded.platform import Platform

REACH_S = 2  # how long an injection waits for a server before it is given up
SIGNALS = {
    Kind.KILLED: signal.SIGKILL,
    Kind.STOPPED: signal.SIGTERM,
    Kind.RESTARTED: signal.SIGINT,  # PostgreSQL's fast shutdown: sessions are cut, what is committed is written
    Kind.CRASHED: signal.SIGQUIT,  # and its immediate one: it recovers from the log at the next start
}
CUT = """
SELECT pg_terminate_backend(pid) FROM (
  SELECT pid, row_number() OVER (ORDER BY pid) AS place, count(*) OVER () AS backends FROM pg_stat_activity
  WHERE datname = current_database() AND application_name LIKE 'taskflow-%%'
) b WHERE place <= ceil(%(share)s * backends)
"""


class Injector:
    """Applies faults to one platform. A part that is down at that moment is left alone."""

    def __init__(self, platform: Platform, *, database_url: str, redis_url: str) -> None:
        self._platform = platform
        self._database_url = database_url
        self._redis_url = redis_url
        self._thaws: set[asyncio.Task[None]] = set()
        self._frozen: set[int] = set()

    async def apply(self, fault: Fault) -> bool:
        """Do it; return whether there was something to do it to. A frozen part thaws by itself."""
        match fault.kind:
            case Kind.EMPTIED:
                return await asyncio.to_thread(self._empty)
            case Kind.CUT:
                return await asyncio.to_thread(self._cut, fault.share)
            case Kind.FROZEN:
                return self._freeze(fault)
            case _:
                return self._send(self._platform.pid(fault.target), SIGNALS[fault.kind])

    async def undo(self) -> None:
        """Thaw what is frozen."""
        for thaw in self._thaws:
            thaw.cancel()
        await asyncio.gather(*self._thaws, return_exceptions=True)

    def _freeze(self, fault: Fault) -> bool:
        pid = self._platform.pid(fault.target)
        if pid is None or pid in self._frozen or not self._send(pid, signal.SIGSTOP):
            return False
        self._frozen.add(pid)
        thaw = asyncio.create_task(self._thaw(fault.target, pid, after_s=fault.hold_s))
        self._thaws.add(thaw)
        thaw.add_done_callback(self._thaws.discard)
        return True

    async def _thaw(self, name: str, pid: int, *, after_s: float) -> None:
        try:
            await asyncio.sleep(after_s)
        finally:
            self._frozen.discard(pid)
            if self._platform.pid(name) == pid:  # it may have been killed meanwhile, and its number be another's
                self._send(pid, signal.SIGCONT)

    @staticmethod
    def _send(pid: int | None, number: signal.Signals) -> bool:
        if pid is None:
            return False
        with suppress(ProcessLookupError):
            os.kill(pid, number)
            return True
        return False

    def _empty(self) -> bool:
        try:
            with Redis.from_url(self._redis_url, socket_connect_timeout=REACH_S, socket_timeout=REACH_S) as client:
                client.flushall()
        except (RedisError, OSError):
            return False
        return True

    def _cut(self, share: float) -> bool:
        try:
            with psycopg.connect(
                self._database_url, connect_timeout=REACH_S, autocommit=True, application_name="chaos"
            ) as connection:
                return connection.execute(CUT, {"share": share}).rowcount > 0
        except psycopg.Error:
            return False
