"""Who listens to the feed: open streams, and tasks that somebody follows."""

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from psycopg import AsyncConnection

from taskflow_core import api_keys, refresh, users
from taskflow_core.events import EventFilter
from taskflow_core.tokens import Identity


class Wake:
    """A flag that one task waits for. asyncio.Event has a queue for those who wait, of 800 bytes."""

    __slots__ = ("_set", "_waiter")

    def __init__(self) -> None:
        self._set = False
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        """Raise the flag, and have the one who waits go on."""
        self._set = True
        _finish(self._waiter)

    async def wait(self, timeout_s: float) -> bool:
        """Wait until the flag is raised, and lower it; False when it was not within `timeout_s`."""
        if not self._set:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = loop.call_later(timeout_s, _finish, self._waiter)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
        raised, self._set = self._set, False
        return raised


def _finish(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


@dataclass(eq=False, slots=True)
class Followed:
    """What the hub last saw of a task that somebody follows."""

    version: int | None = 0
    finished: bool = False
    progress: str | None = None
    last_line: int = 0
    wakes: list[Wake] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Listener:
    """An open stream: whose it is, and why it has to end (None: it goes on)."""

    identity: Identity
    filters: EventFilter | None = None
    cursor: int = 0
    ended: str | None = None
    wake: Wake = field(default_factory=Wake)

    def end(self, reason: str) -> None:
        """Have the stream end, if nothing else ended it before."""
        self.ended = self.ended or reason
        self.wake.set()


def end_expired(listeners: Iterable[Listener]) -> None:
    """End the streams whose token has expired."""
    now = time.time()
    for listener in listeners:
        if listener.identity.expires_at <= now:
            listener.end("token_expired")


async def end_refused(connection: AsyncConnection[Any], listeners: Iterable[Listener]) -> None:
    """End the streams whose account, session or API key would not be let in any more."""
    identities = {listener.identity for listener in listeners}
    standing = await users.standing(connection, list({identity.actor.user_id for identity in identities}))
    sessions = await refresh.living(connection, [known.session_id for known in identities if known.session_id])
    keys = await api_keys.living(connection, [known.key_id for known in identities if known.key_id])
    for listener in listeners:
        known = listener.identity
        if standing.get(known.actor.user_id) != (known.actor.role, known.token_version):
            listener.end("account_changed")
        elif known.session_id is not None and known.session_id not in sessions:
            listener.end("session_ended")
        elif known.key_id is not None and known.key_id not in keys:
            listener.end("key_revoked")
