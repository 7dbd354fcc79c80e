"""Who listens to the feed: open streams, and tasks that somebody follows."""

import asyncio
import contextlib
from dataclasses import dataclass, field

from taskflow_core.actors import Actor
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

    actor: Actor
    identity: Identity | None
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
