"""Open streams outlive PostgreSQL's connections, and end with whatever let them in."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest
from httpx2 import AsyncClient

from api_app import Api, Person, api_settings, running_api
from streaming import Sent, Stream, served, stream
from taskflow_api import feed
from taskflow_core.settings import Settings
from waiting import eventually_async

ROUNDS, EACH = 4, 10
TERMINATE = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


@dataclass
class Scene:
    """A running app, a client that reaches it over a socket, and who is there."""

    api: Api
    client: AsyncClient
    ada: Person

    async def new_key(self) -> tuple[str, str]:
        body = {"name": "k", "scopes": ["events:read", "tasks:read"]}
        made = (await self.client.post("/api/v1/api-keys", json=body, headers=self.ada.headers)).json()
        return made["id"], made["key"]

    async def position(self) -> int:
        """Return the id after which a stream is to begin, so that no moment of its start matters."""
        page = await self.client.get("/api/v1/events", headers=self.ada.headers)
        return int(page.json()["next_after"])

    async def new_session(self) -> Person:
        tokens = (await self.api.login(self.ada.email)).json()
        return Person(self.ada.id, self.ada.email, tokens["access_token"], tokens["refresh_token"])


@pytest.fixture(scope="module")
async def running(module_settings: Settings) -> AsyncIterator[tuple[Api, AsyncClient]]:
    bounds = api_settings(module_settings, max_streams_per_user=50)
    async with running_api(bounds) as api, served(api.app) as client:
        yield api, client
        api.resources.feed.close()


@pytest.fixture
async def scene(
    running: tuple[Api, AsyncClient], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Scene:
    monkeypatch.setattr(feed, "ACCOUNTS_S", 0.1)
    api, client = running
    return Scene(api, client, await api.person(f"ada{abs(hash(request.node.name))}"))


async def reasons(open_stream: Stream) -> list[str]:
    return [event.data["reason"] for event in await open_stream.rest() if event.kind == "end"]


async def still_open(scene: Scene, open_stream: Stream) -> bool:
    """Whether something that happens now is still told."""
    task = await scene.api.task(scene.ada)
    return any(event.data.get("task_id") == task["id"] for event in await open_stream.until("task.created"))


async def test_a_revoked_key_ends_its_streams_of_every_kind_and_no_other(scene: Scene) -> None:
    task = await scene.api.task(scene.ada)
    (revoked, key), (_, other) = await scene.new_key(), await scene.new_key()
    paths = ["/events", f"/tasks/{task['id']}/events", f"/tasks/{task['id']}/logs"]
    async with contextlib.AsyncExitStack() as stack:
        bearer = {"Authorization": f"Bearer {key}"}
        ending = [await stack.enter_async_context(stream(scene.client, path, bearer)) for path in paths]
        going_on = await stack.enter_async_context(
            stream(scene.client, "/events", {"Authorization": f"Bearer {other}"}, last_id=await scene.position())
        )
        answer = await scene.client.delete(f"/api/v1/api-keys/{revoked}", headers=scene.ada.headers)
        assert answer.status_code == 204
        for one in ending:
            assert await reasons(one) == ["key_revoked"]
        assert await still_open(scene, going_on)


async def end_by_id(scene: Scene, session: Person) -> None:
    sessions = (await scene.client.get("/api/v1/auth/sessions", headers=session.headers)).json()["items"]
    (current,) = [one["id"] for one in sessions if one["current"]]
    answer = await scene.client.delete(f"/api/v1/auth/sessions/{current}", headers=scene.ada.headers)
    assert answer.status_code == 204


async def log_out(scene: Scene, session: Person) -> None:
    answer = await scene.client.post("/api/v1/auth/logout", json={"refresh_token": session.refresh})
    assert answer.status_code == 204


async def steal(scene: Scene, session: Person) -> None:
    """Use a refresh token again, after the one that it was traded for: one of the two is a thief."""
    first = await scene.client.post("/api/v1/auth/refresh", json={"refresh_token": session.refresh})
    for token in (first.json()["refresh_token"], session.refresh):
        await scene.client.post("/api/v1/auth/refresh", json={"refresh_token": token})


@pytest.mark.parametrize("end", [end_by_id, log_out, steal])
async def test_an_ended_session_ends_its_streams_and_no_other(
    scene: Scene, end: Callable[[Scene, Person], Awaitable[None]]
) -> None:
    session = await scene.new_session()
    async with (
        stream(scene.client, "/events", session.headers) as ending,
        stream(scene.client, "/events", scene.ada.headers, last_id=await scene.position()) as going_on,
    ):
        await end(scene, session)
        assert await reasons(ending) == ["session_ended"]
        assert await still_open(scene, going_on)


async def log_out_everywhere(scene: Scene) -> None:
    assert (await scene.client.post("/api/v1/auth/logout-all", headers=scene.ada.headers)).status_code == 204


async def disable(scene: Scene) -> None:
    await scene.api.sql("UPDATE users SET disabled_at = now() WHERE email = :email", email=scene.ada.email)


@pytest.mark.parametrize("change", [log_out_everywhere, disable])
async def test_a_changed_account_ends_all_its_streams(scene: Scene, change: Callable[[Scene], Awaitable[None]]) -> None:
    session = await scene.new_session()
    async with (
        stream(scene.client, "/events", session.headers) as one,
        stream(scene.client, "/events", scene.ada.headers) as other,
    ):
        await change(scene)
        assert await reasons(one) == await reasons(other) == ["account_changed"]


async def test_streams_miss_and_repeat_nothing_while_every_connection_to_postgres_is_cut_again_and_again(
    scene: Scene,
) -> None:
    made: list[str] = []
    watched = await scene.api.task(scene.ada)
    start = await scene.position()

    async def create(number: int) -> None:
        """Create a task as a client does: the same request again until it is answered."""
        body = {"type": "LETTER", "payload": {"to": ["ada"]}}
        headers = scene.ada.headers | {"Idempotency-Key": f"cut-{number}"}

        async def accepted() -> str | None:
            answer = await scene.client.post("/api/v1/tasks", json=body, headers=headers)
            assert answer.status_code in (201, 503), answer.text
            return str(answer.json()["id"]) if answer.status_code == 201 else None

        made.append(await eventually_async(accepted) or "")

    async with (
        stream(scene.client, "/events", scene.ada.headers, last_id=start) as first,
        stream(scene.client, "/events?kind=task.created", scene.ada.headers, last_id=start) as second,
        stream(scene.client, f"/tasks/{watched['id']}/events", scene.ada.headers) as third,
    ):
        for part in range(ROUNDS):
            creating = [asyncio.create_task(create(part * EACH + number)) for number in range(EACH)]
            with contextlib.suppress(Exception):  # the killer's own connection may be one of the pool that was cut
                await scene.api.fetch(TERMINATE)
            await asyncio.gather(*creating)
        for open_stream in (first, second):
            assert ids(await open_stream.take(len(made))) == await stored(scene)
        await eventually_async(lambda: canceled(scene, watched["id"]))
        assert [event.kind for event in await third.rest()] == ["task.created", "task.canceled", "end"]


async def canceled(scene: Scene, task_id: str) -> bool:
    answer = await scene.client.post(f"/api/v1/tasks/{task_id}:cancel", headers=scene.ada.headers)
    return answer.status_code in (200, 409)


def ids(events: list[Sent]) -> list[int | None]:
    return [event.id for event in events]


async def stored(scene: Scene) -> list[int | None]:
    """Return the ids of all but the first event of the user, as the table has them."""
    query = "SELECT id FROM task_events WHERE owner_id = :owner AND kind = 'task.created' ORDER BY id OFFSET 1"
    return [row[0] for row in await scene.api.fetch(query, owner=scene.ada.id)]
