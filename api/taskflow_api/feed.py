"""What is new in PostgreSQL, looked for once for all who wait in this process: one hub, two connections.

Nobody is told anything by the hot paths: the hub looks, every 20 ms right after something happened and every 200 ms in
quiet times, and only while somebody listens. A listener has a cursor of its own and takes what follows it, from the
newest events that the hub keeps or from the table. So nothing piles up for one who reads slowly.
"""

import asyncio
import contextlib
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar
from uuid import UUID

import psycopg
from psycopg import AsyncConnection

from taskflow_api.listeners import Followed, Listener, Wake, end_expired, end_refused
from taskflow_core import events
from taskflow_core.errors import NoStreamFree, TooManyStreams, Unavailable
from taskflow_core.events import ANY_ID, Event, EventFilter
from taskflow_core.links import Link, pause
from taskflow_core.logs import get_logger
from taskflow_core.settings import ApiSettings
from taskflow_core.tail import Tail
from taskflow_core.tokens import Identity

FASTEST_S, SLOWEST_S = 0.02, 0.2
CALM = 0.1  # the wait between two looks, as a share of the time since something happened
IDLE_S = ACCOUNTS_S = 5.0
FRESH_S = 1.0
KEPT = 1000
WINDOW = 20_000
AWAY = (psycopg.OperationalError, psycopg.InterfaceError, OSError)

log = get_logger(__name__)
T = TypeVar("T")


class Feed:
    """The hub of one API process."""

    def __init__(self, settings: ApiSettings) -> None:
        self._most, self._most_of_one = settings.max_streams, settings.max_streams_per_user
        self._timeout_s = settings.database_timeout_s
        self._looks = Link(settings, service="api-feed")
        self._reads = Link(settings, service="api-feed-read")
        self._reading = asyncio.Lock()
        self._listeners: set[Listener] = set()
        self._owners: Counter[UUID] = Counter()
        self._followed: dict[UUID, Followed] = {}
        self._waiting = 0
        self._tail = Tail()
        self._newest: deque[Event] = deque(maxlen=KEPT)
        self._newest_after = 0
        self._tailed = asyncio.Event()
        self._tail_wanted = 0.0
        self._looked = asyncio.Event()
        self._looks_begun = self._looks_done = 0
        self._poked = asyncio.Event()
        self._active = 0.0
        self._used = 0.0
        self._accounts_checked = 0.0
        self._connection: AsyncConnection[Any] | None = None
        self._loop: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def open_streams(self) -> int:
        """How many streams are open."""
        return len(self._listeners)

    @property
    def kept(self) -> int:
        """How many events are kept for all listeners together."""
        return len(self._newest)

    @property
    def open_waits(self) -> int:
        """How many requests wait for a task's end."""
        return self._waiting

    @contextlib.contextmanager
    def listen(self, identity: Identity, filters: EventFilter | None = None) -> Iterator[Listener]:
        """Count a stream until the block ends.

        Raises:
            TooManyStreams: the user has as many as one may have.
            NoStreamFree: this process has, or it stops.
        """
        if self._closed or len(self._listeners) >= self._most:
            raise NoStreamFree("no stream is free here at the moment; try again soon", retry_after_s=2)
        owner_id = identity.actor.user_id
        if self._owners[owner_id] >= self._most_of_one:
            raise TooManyStreams(f"you have {self._most_of_one} open streams; close one", retry_after_s=5)
        listener = Listener(identity, filters)
        self._listeners.add(listener)
        self._owners[owner_id] += 1
        self._stir()
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
            self._owners[owner_id] -= 1
            if not self._owners[owner_id]:
                del self._owners[owner_id]

    @contextlib.contextmanager
    def follow(self, task_id: UUID, wake: Wake) -> Iterator[Followed]:
        """Have `wake` set whenever the task has changed or its handler has logged, until the block ends."""
        followed = self._followed.setdefault(task_id, Followed())
        followed.wakes.append(wake)
        self._stir()
        try:
            yield followed
        finally:
            followed.wakes.remove(wake)
            if not followed.wakes:
                del self._followed[task_id]

    async def until_final(self, task_id: UUID, *, timeout_s: float) -> bool:
        """Wait until the task has finished or is gone, holding nothing; False when the time is over.

        Raises:
            NoStreamFree: too many wait already, or the process stops.
        """
        if self._closed or self._waiting >= self._most:
            raise NoStreamFree("too many requests wait here", retry_after_s=1)
        wake, deadline = Wake(), time.monotonic() + timeout_s
        self._waiting += 1
        try:
            with self.follow(task_id, wake) as followed:
                while (left := deadline - time.monotonic()) > 0 and not followed.finished and not self._closed:
                    await wake.wait(left)
                return followed.finished
        finally:
            self._waiting -= 1

    async def position(self) -> int:
        """Return the id up to which every event that will ever be there is there.

        Raises:
            Unavailable: PostgreSQL is away, or a writer has not ended for too long.
        """
        self._tail_wanted = time.monotonic()
        if self._tailed.is_set():
            self._use()
            return self._tail.position
        self._stir()
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._tailed.wait()
        except TimeoutError:
            raise Unavailable("the events cannot be read now; try again soon", retry_after_s=2) from None
        return self._tail.position

    async def newest_position(self) -> int:
        """Return a position that includes what was committed before the call, unless a writer hangs below it.

        Raises:
            Unavailable: as `position`.
        """
        await self.position()
        begun, wanted = self._looks_begun, ANY_ID
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FRESH_S):
                while self._tail.position < wanted:
                    self._stir()
                    await self._looked.wait()
                    if self._looks_done > begun and wanted == ANY_ID:
                        wanted = self._tail.seen
        return await self.position()

    async def following(self, cursor: int, filters: EventFilter, *, limit: int) -> tuple[list[Event], int]:
        """Return wanted events after the cursor, and where to go on: a step that may be empty before the end."""
        upto = await self.position()
        if cursor >= upto:
            return [], cursor
        if cursor >= self._newest_after:
            found = [event for event in self._newest if event.id > cursor and filters.accepts(event)]
        else:
            upto = min(upto, cursor + WINDOW)
            window = (cursor, upto)
            found = await self.read(lambda link: events.between(link, *window, limit=limit, filters=filters))
        if len(found) >= limit:
            return found[:limit], found[limit - 1].id
        return found, upto

    async def newest(self, filters: EventFilter, *, limit: int) -> tuple[list[Event], int]:
        """Return the newest wanted events, oldest first, among the last WINDOW of all, and where to go on."""
        upto = await self.newest_position()
        window = (max(0, upto - WINDOW), upto)
        found = await self.read(
            lambda link: events.between(link, *window, limit=limit, filters=filters, newest_first=True)
        )
        return found[::-1], upto

    async def read(self, query: Callable[[AsyncConnection[Any]], Awaitable[T]]) -> T:
        """Run a short query over the one connection that all listeners share.

        Raises:
            Unavailable: PostgreSQL is away.
        """
        self._use()
        async with self._reading:
            try:
                return await query(await self._reads.get())
            except AWAY as error:
                await self._reads.drop()
                raise Unavailable("the database does not answer; try again soon", retry_after_s=2) from error

    def close(self) -> None:
        """End every stream and every wait: the process stops."""
        self._closed = True
        for listener in self._listeners:
            listener.end("shutting_down")
        for followed in self._followed.values():
            _set(followed.wakes)

    async def aclose(self) -> None:
        """Close, and wait until the connections are closed."""
        self.close()
        self._poked.set()
        if self._loop is not None:
            await self._loop

    def _use(self) -> None:
        """Have the loop run: it also closes the connections when nobody needs them any more."""
        self._used = time.monotonic()
        if self._loop is None and not self._closed:
            self._loop = asyncio.create_task(self._run(), name="feed")

    def _stir(self) -> None:
        """Have the loop look soon, and often for a while."""
        self._use()
        self._active = self._used
        self._poked.set()

    async def _run(self) -> None:
        failures = 0
        while not self._closed and (self._listeners or self._followed or time.monotonic() - self._used < IDLE_S):
            started = time.monotonic()
            self._poked.clear()
            try:
                await self._look(await self._looks.get())
                failures = 0
            except (psycopg.Error, OSError) as error:
                failures += 1
                log.warning("feed.away", reason=str(error).strip())
                await self._looks.drop()
                await pause(failures, cap_s=2.0)
                continue
            now = time.monotonic()
            await asyncio.sleep(max(FASTEST_S, 5 * (now - started)))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(SLOWEST_S, (now - self._active) * CALM)):
                    await self._poked.wait()
        self._loop = None
        self._forget_tail()
        await self._looks.drop()
        async with self._reading:
            await self._reads.drop()

    async def _look(self, connection: AsyncConnection[Any]) -> None:
        if connection is not self._connection:
            await self._resume(connection)
        if self._followed:
            await self._look_at_tasks(connection)
        tailing = [listener for listener in self._listeners if listener.filters is not None]
        if tailing or time.monotonic() - self._tail_wanted < IDLE_S:
            await self._look_at_tail(connection, tailing)
        elif self._tailed.is_set():
            self._forget_tail()
        if self._listeners:
            await self._look_at_accounts(connection)

    async def _look_at_tasks(self, connection: AsyncConnection[Any]) -> None:
        known = [(task_id, task.version, task.last_line) for task_id, task in self._followed.items()]
        for change in await events.changes(connection, known):
            task = self._followed.get(change.task_id)
            if task is not None:
                task.version, task.progress, task.last_line = change.version, change.progress, change.last_line
                task.finished = change.version is None or bool(change.finished)
                self._active = time.monotonic()
                _set(task.wakes)

    async def _look_at_tail(self, connection: AsyncConnection[Any], tailing: Sequence[Listener]) -> None:
        before = self._tail.position
        self._looks_begun += 1
        batch = await self._tail.read(connection)
        self._looks_done = self._looks_begun
        self._looked.set()
        self._looked = asyncio.Event()
        if self._tail.ready and not self._tailed.is_set():
            self._newest_after = self._tail.position
            self._tailed.set()
        if self._tail.position == before:
            return
        self._active = time.monotonic()
        for event in batch:
            if len(self._newest) == KEPT:
                self._newest_after = self._newest[0].id
            self._newest.append(event)
        for listener in tailing:
            wanted = any(listener.filters is not None and listener.filters.accepts(event) for event in batch)
            if wanted or listener.cursor < before:
                listener.wake.set()
            else:  # it waits at the end, and there is nothing for it
                listener.cursor = max(listener.cursor, self._tail.position)

    async def _look_at_accounts(self, connection: AsyncConnection[Any]) -> None:
        end_expired(self._listeners)
        if time.monotonic() - self._accounts_checked >= ACCOUNTS_S:
            await end_refused(connection, list(self._listeners))
            self._accounts_checked = time.monotonic()

    async def _resume(self, connection: AsyncConnection[Any]) -> None:
        before = self._tail.position
        await self._tail.resume(connection)
        if self._tail.position < before:
            self._newest.clear()
            self._newest_after = self._tail.position
            for listener in self._listeners:
                listener.cursor = min(listener.cursor, self._tail.position)
        self._connection = connection

    def _forget_tail(self) -> None:
        self._tail = Tail()
        self._newest.clear()
        self._tailed.clear()


def _set(wakes: Iterable[Wake]) -> None:
    for wake in wakes:
        wake.set()
