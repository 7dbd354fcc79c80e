"""PostgreSQL and Valkey restarted under open streams: whoever follows goes on, or comes back, and misses nothing."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from uuid import UUID

import httpx2
import pytest

from faults.scene import Api, Scene, Stopwatch
from streaming import Sent, Stream
from waiting import eventually_async

TASKS = 40
ENDS = "SELECT id, kind FROM task_events WHERE owner_id = %s ORDER BY id"
LINES = "SELECT id FROM task_logs WHERE task_id = %s ORDER BY id"


class Follower:
    """A client of a stream that comes back with the id of what it saw last."""

    def __init__(self, api: Api, path: str) -> None:
        self.seen: list[Sent] = []
        self.opened = 0
        self._api = api
        self._path = path

    @property
    def ids(self) -> list[int]:
        """The ids of what was seen, in that order."""
        return [event.id for event in self.seen if event.id is not None]

    async def follow(self) -> None:
        """Read until the server says that all is over."""
        last_id: int | None = 0
        while True:
            async with self._open(last_id) as events:
                while events and (event := await events.next()) is not None:
                    self.seen.append(event)
                    last_id = event.id or last_id
                    if event.kind == "end" and event.data["reason"] == "finished":
                        return

    @contextlib.asynccontextmanager
    async def _open(self, last_id: int | None) -> AsyncIterator[Stream | None]:
        """Open the stream; None when the answer is 503, which says when to come back, or breaks off."""
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(last_id)}
        with contextlib.suppress(httpx2.TransportError):
            async with self._api.http.stream("GET", f"/api/v1{self._path}", headers=headers) as response:
                if response.status_code == 503:
                    await asyncio.sleep(int(response.headers["Retry-After"]))
                    yield None
                else:
                    assert response.status_code == 200, await response.aread()
                    self.opened += 1
                    yield Stream(response)


async def created(api: Api) -> list[UUID]:
    """Create TASKS tasks, as soon as the API takes one."""

    async def accepts() -> bool:
        answer = await api.post()
        ids.extend(UUID(answer.json()["id"]) for _ in range(answer.status_code == 201))
        return len(ids) == TASKS

    ids: list[UUID] = []
    await eventually_async(accepts)
    return ids


@contextlib.asynccontextmanager
async def following(api: Api, path: str) -> AsyncIterator[Follower]:
    """Follow a stream until the block ends; raise what went wrong with it."""
    follower = Follower(api, path)
    reading = asyncio.create_task(follower.follow())
    try:
        yield follower
    finally:
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading


@pytest.mark.parametrize(
    ("which", "number"),
    [
        pytest.param("postgres", signal.SIGINT, id="PostgreSQL is restarted"),
        pytest.param("postgres", signal.SIGQUIT, id="PostgreSQL crashes"),
        pytest.param("valkey", signal.SIGKILL, id="Valkey crashes"),
    ],
)
async def test_19_open_streams_tell_everything_once_across_a_restart(
    scene: Scene, which: str, number: signal.Signals
) -> None:
    """Streams of all tasks, of one and of its lines are open when the server goes. Recovery: from its return."""
    await scene.scheduler()
    await scene.worker(slots="8", lease_s="20", database_timeout_s="20")
    server = getattr(scene.servers, which)
    async with scene.api() as api, contextlib.AsyncExitStack() as stack:
        owner = UUID((await api.http.get("/api/v1/auth/me")).json()["id"])
        (long,) = await scene.submit(1, "TALK", lambda _: {"seconds": 6.0}, owner=owner)
        paths = ("/events", f"/tasks/{long}/events", f"/tasks/{long}/logs")
        followers = [await stack.enter_async_context(following(api, path)) for path in paths]
        ids = [long, *await created(api)]
        await scene.until("finished_at IS NOT NULL", count=TASKS // 2)
        server.stop(number)
        server.start()
        watch = Stopwatch()
        ids += await created(api)
        await scene.until_final(ids)
        there = await scene.query(ENDS, owner)

        async def told() -> bool:
            over = [any(event.kind == "end" for event in follower.seen) for follower in followers[1:]]
            return len(followers[0].ids) >= len(there) and all(over)

        await eventually_async(told)
        recovery_s = watch.read()
    assert followers[0].ids == [row[0] for row in there]
    assert followers[1].ids == [row[0] for row in await scene.query(ENDS.replace("owner_id", "task_id"), long)]
    assert followers[2].ids == [row[0] for row in await scene.query(LINES, long)]
    for follower in followers[1:]:
        assert [event.data["reason"] for event in follower.seen if event.kind == "end"][-1:] == ["finished"]
    again = sum(follower.opened for follower in followers) - len(followers)
    await scene.report(f"19 streams, {which} gone", ids, recovery_s=recovery_s, note=f"{again} streams opened again")
