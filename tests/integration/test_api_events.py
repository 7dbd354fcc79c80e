"""GET /events, /tasks/{id}/events and /logs: pages, and streams over a real socket."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from httpx2 import AsyncClient

from api_app import Api, api_settings, running_api
from streaming import served, stream
from taskflow_core.models.users import Role
from taskflow_core.settings import Settings


@dataclass
class Scene:
    """A running app, and a client that reaches it over a socket."""

    api: Api
    client: AsyncClient


@pytest.fixture(scope="module")
async def scene(module_settings: Settings) -> AsyncIterator[Scene]:
    bounds = api_settings(module_settings, max_streams=12, max_streams_per_user=3)
    async with running_api(bounds) as api, served(api.app) as client:
        yield Scene(api, client)
        api.resources.feed.close()


async def test_a_tasks_events_come_as_a_page(scene: Scene) -> None:
    ada = await scene.api.person("page")
    task = await scene.api.task(ada)
    path = f"/api/v1/tasks/{task['id']}/events"
    page = (await scene.client.get(path, headers=ada.headers)).json()
    (event,) = page["items"]
    assert (event["kind"], event["status"], event["type"]) == ("task.created", "PENDING", "LETTER")
    assert (page["next_after"], page["more"]) == (event["id"], False)
    await scene.client.post(f"/api/v1/tasks/{task['id']}:cancel", headers=ada.headers)
    first = (await scene.client.get(path, params={"limit": 1}, headers=ada.headers)).json()
    assert first["more"]
    rest = (await scene.client.get(path, params={"after": first["next_after"]}, headers=ada.headers)).json()
    assert [item["kind"] for item in rest["items"]] == ["task.canceled"]


async def test_a_tasks_stream_tells_its_history_goes_on_and_ends_with_the_task(scene: Scene) -> None:
    ada = await scene.api.person("stream")
    task = await scene.api.task(ada)
    async with stream(scene.client, f"/tasks/{task['id']}/events", ada.headers) as events:
        assert (await events.take(1))[0].kind == "task.created"
        await scene.client.post(f"/api/v1/tasks/{task['id']}:cancel", headers=ada.headers)
        rest = await events.rest()
    assert [event.kind for event in rest] == ["task.canceled", "end"]
    assert rest[0].data["status"] == "CANCELED"
    assert rest[1].data == {"reason": "finished"}
    resumed = {"Accept": "text/event-stream", "Last-Event-ID": str(events.last_id)}
    answer = await scene.client.get(f"/api/v1/tasks/{task['id']}/events", headers=ada.headers | resumed)
    assert answer.status_code == 204, "a browser would else come back for ever"


async def test_everybodys_events_are_for_operators_and_ones_own_for_users(scene: Scene) -> None:
    ada, bob = await scene.api.person("ada"), await scene.api.person("bob")
    chief = await scene.api.person("chief", role=Role.OPERATOR)
    async with (
        stream(scene.client, "/events", ada.headers) as hers,
        stream(scene.client, "/events", chief.headers) as all_,
        stream(scene.client, "/events?queue=urgent", chief.headers) as urgent,
    ):
        first = await scene.api.task(bob)
        second = await scene.api.task(ada, queue="urgent")
        assert [event.data["task_id"] for event in await all_.take(2)] == [first["id"], second["id"]]
        assert [event.data["task_id"] for event in await hers.take(1)] == [second["id"]]
        assert [event.data["task_id"] for event in await urgent.take(1)] == [second["id"]]
