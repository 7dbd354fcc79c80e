"""Reads server-sent events over a real socket, and serves an app on one."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import uvicorn
from fastapi import FastAPI
from httpx2 import AsyncClient, Response

from waiting import eventually_async

DEADLINE_S = 30


@dataclass
class Sent:
    """One event as the client has it."""

    kind: str
    id: int | None
    data: dict[str, Any]


class Stream:
    """An open stream; `last_id` is what a browser would send as Last-Event-ID."""

    def __init__(self, response: Response) -> None:
        self.response = response
        self.last_id: int | None = None
        self._lines = response.aiter_lines()

    async def next(self) -> Sent | None:
        """Return the next event that has data, None at the end of the stream."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(DEADLINE_S):
            async for line in self._lines:
                if line:
                    name, _, value = line.partition(": ")
                    fields[name] = value
                    continue
                if "id" in fields:
                    self.last_id = int(fields["id"])
                if "data" in fields:
                    number = int(fields["id"]) if "id" in fields else None
                    return Sent(fields["event"], number, json.loads(fields["data"]))
                fields = {}
        return None

    async def take(self, count: int) -> list[Sent]:
        """Return the next `count` events."""
        events = [await self.next() for _ in range(count)]
        return [event for event in events if event is not None]

    async def rest(self) -> list[Sent]:
        """Return everything until the stream ends."""
        events = []
        while (event := await self.next()) is not None:
            events.append(event)
        return events

    async def until(self, kind: str) -> list[Sent]:
        """Return everything up to the first event of that kind."""
        events = []
        while (event := await self.next()) is not None:
            events.append(event)
            if event.kind == kind:
                return events
        raise AssertionError(f"the stream ended without {kind}: {[event.kind for event in events]}")


@contextlib.asynccontextmanager
async def stream(
    client: AsyncClient, path: str, headers: dict[str, str], *, last_id: int | None = None
) -> AsyncIterator[Stream]:
    """Open a stream."""
    headers = headers | {"Accept": "text/event-stream"}
    if last_id is not None:
        headers["Last-Event-ID"] = str(last_id)
    async with client.stream("GET", f"/api/v1{path}", headers=headers) as response:
        assert response.status_code == 200, (response.status_code, await response.aread())
        yield Stream(response)


@contextlib.asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[AsyncClient]:
    """Serve an app whose lifespan runs already; yields a client of it."""
    config = uvicorn.Config(app, port=0, lifespan="off", log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    server.install_signal_handlers = False  # type: ignore[attr-defined]
    serving = asyncio.create_task(server.serve())
    await eventually_async(lambda: _started(server))
    port = server.servers[0].sockets[0].getsockname()[1]
    async with AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE_S) as client:
        yield client
    server.should_exit = True
    await serving


async def _started(server: uvicorn.Server) -> bool:
    return server.started
