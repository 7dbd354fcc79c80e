"""Streams of a real API process: it is stopped, killed and started again while they are open."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from httpx2 import AsyncClient
from sqlalchemy import text

from api_app import PASSWORD
from children import Child, Children
from streaming import Sent, stream
from taskflow_cli.embedded.ports import free_port
from taskflow_core.database import Sessions
from waiting import eventually_async

COUNT = 200


@pytest.fixture
async def client() -> AsyncIterator[AsyncClient]:
    async with AsyncClient(base_url=f"http://127.0.0.1:{free_port()}", timeout=30) as client:
        yield client


async def start(nursery: Children, client: AsyncClient) -> Child:
    api = nursery.start(
        "taskflow_api", api_port=str(client.base_url.port), bcrypt_rounds="4", max_streams_per_user="100"
    )

    async def is_ready() -> bool:
        assert api.process.poll() is None, api.log.read_text()
        with contextlib.suppress(httpx2.TransportError):
            return (await client.get("/health/ready")).status_code == 200
        return False

    await eventually_async(is_ready)
    return api


async def login(client: AsyncClient) -> dict[str, str]:
    account = {"email": "ada@example.com", "password": PASSWORD}
    await client.post("/api/v1/auth/register", json=account)
    tokens = (await client.post("/api/v1/auth/login", json=account)).json()
    return {"Authorization": f"Bearer {tokens['access_token']}"}


async def test_sigterm_ends_fifty_open_streams_and_the_process(nursery: Children, client: AsyncClient) -> None:
    api = await start(nursery, client)
    headers = await login(client)
    made = await client.post("/api/v1/tasks", json={"type": "ECHO", "payload": {}}, headers=headers)
    paths = ["/events", f"/tasks/{made.json()['id']}/events", f"/tasks/{made.json()['id']}/logs"]
    async with contextlib.AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(stream(client, paths[number % 3], headers)) for number in range(50)]
        waiting = asyncio.create_task(client.get(made.headers["Location"], headers=headers | {"Prefer": "wait=30"}))
        await asyncio.gather(*(one.take(1) for one in opened[1::3]))
        api.kill(signal.SIGTERM)
        lasts = [(await one.rest())[-1] for one in opened]
    assert {(last.kind, last.data["reason"]) for last in lasts} == {("end", "shutting_down")}
    assert (await waiting).json()["status"] == "PENDING"
    assert await asyncio.to_thread(api.process.wait, 30) == 0
    assert "Cancel" not in api.log.read_text(), "nothing had to be cut off"


async def test_a_client_that_comes_back_misses_and_repeats_nothing_when_the_api_is_killed(
    nursery: Children, client: AsyncClient, sessions: Sessions
) -> None:
    api = await start(nursery, client)
    headers = await login(client)
    nursery.worker()
    seen: list[Sent] = []

    async def follow(last_id: int | None) -> int | None:
        """Read until the connection breaks or all is seen; return where to go on."""
        with contextlib.suppress(httpx2.TransportError):
            async with stream(client, "/events", headers, last_id=last_id) as events:
                while len([one for one in seen if one.kind == "task.completed"]) < COUNT:
                    event = await events.next()
                    if event is None:
                        break
                    seen.append(event)
                    last_id = event.id
        return last_id

    body: dict[str, Any] = {"type": "NAP", "payload": {"seconds": 0.05, "steps": 1}}
    last_id: int | None = 0
    for part in range(2):
        reading = asyncio.create_task(follow(last_id))
        posts = (client.post("/api/v1/tasks", json=body, headers=headers) for _ in range(COUNT // 2))
        assert {made.status_code for made in await asyncio.gather(*posts)} == {201}
        if part == 0:
            api.kill()
            last_id = await reading
            await asyncio.to_thread(api.process.wait, 10)
            api = await start(nursery, client)
    await reading
    async with sessions() as session:
        there = list((await session.execute(text("SELECT id FROM task_events ORDER BY id"))).scalars())
    assert [event.id for event in seen] == there
