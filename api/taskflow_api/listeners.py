"""Who listens to the feed: open streams, and tasks that somebody follows."""

import asyncio
import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from psycopg import AsyncConnection

from taskflow_core import api_keys, refresh, users
from taskflow_core.events import EventFilter
from taskflow_core.tokens import Identity


@dataclass(eq=False, slots=True)
class Followed:
    """What the hub last saw of a task that somebody follows."""

    version: int | None = 0
    finished: bool = False
    progress: str | None = None
    last_line: int = 0
    wakes: list[asyncio.Event] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Listener:
    """An open stream: whose it is, and why it has to end (None: it goes on)."""

    identity: Identity
    filters: EventFilter | None = None
    cursor: int = 0
    ended: str | None = None
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    def end(self, reason: str) -> None:
        """Have the stream end, if nothing else ended it before."""
        self.ended = self.ended or reason
        self.wake.set()

    async def woken(self, timeout_s: float) -> bool:
        """Wait until there may be something new; False after `timeout_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.wake.wait()
                self.wake.clear()
                return True
        return False


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
