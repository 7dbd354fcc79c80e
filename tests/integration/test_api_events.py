"""GET /events, /tasks/{id}/events and /logs: pages, and streams over a real socket."""

import contextlib
import gc
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import pytest
from httpx2 import AsyncClient
from sqlalchemy import text
from starlette.requests import Request

from api_app import Api, api_settings, running_api
from streaming import served, stream
from taskflow_api import feed
from taskflow_core.models.users import Role
from taskflow_core.settings import Settings
from waiting import eventually_async

STREAM = {"Accept": "text/event-stream"}


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


async def test_progress_is_told_and_keeps_the_place_in_the_stream(scene: Scene) -> None:
    ada = await scene.api.person("progress")
    task = await scene.api.task(ada)
    async with stream(scene.client, f"/tasks/{task['id']}/events", ada.headers) as events:
        (created,) = await events.take(1)
        await scene.api.sql(
            "UPDATE tasks SET progress = '{\"done\": 1}', row_version = row_version + 1 WHERE id = :id", id=task["id"]
        )
        (progress,) = await events.take(1)
    assert (progress.kind, progress.id, progress.data["progress"]) == ("task.progress", None, {"done": 1})
    assert events.last_id == created.id


async def test_lines_come_as_a_page_and_as_a_stream_that_follows(scene: Scene) -> None:
    ada = await scene.api.person("lines")
    task = await scene.api.task(ada)
    path = f"/tasks/{task['id']}/logs"

    async def say(level: str, attempt: int, message: str) -> None:
        insert = "INSERT INTO task_logs (task_id, attempt, level, message) VALUES (:id, :attempt, :level, :message)"
        await scene.api.sql(insert, id=task["id"], attempt=attempt, level=level, message=message)

    await say("info", 1, "first")
    await say("error", 2, "second")
    page = (await scene.client.get(f"/api/v1{path}", headers=ada.headers)).json()
    assert [(line["level"], line["message"]) for line in page["items"]] == [("info", "first"), ("error", "second")]
    for query, expected in (("level=warning", "second"), ("attempt=1", "first"), (f"after={page['next_after']}", "")):
        found = (await scene.client.get(f"/api/v1{path}?{query}", headers=ada.headers)).json()
        assert "".join(line["message"] for line in found["items"]) == expected
    async with stream(scene.client, path, ada.headers) as lines:
        assert [line.data["message"] for line in await lines.take(2)] == ["first", "second"]
        await say("info", 2, "third")
        assert [line.data["message"] for line in await lines.take(1)] == ["third"]
        await say("info", 2, "last")
        await scene.client.post(f"/api/v1/tasks/{task['id']}:cancel", headers=ada.headers)
        assert [(line.kind, line.data.get("message")) for line in await lines.rest()] == [
            ("log", "last"),
            ("end", None),
        ]


@pytest.mark.parametrize("path", ["/tasks/{id}/events", "/tasks/{id}/logs", "/events?task={id}"])
@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
async def test_anothers_task_is_not_there(scene: Scene, path: str, accept: str) -> None:
    name = f"{accept[:4]}{path[1:4]}{path[-4:-1]}".replace("/", "")
    ada, bob = await scene.api.person(f"ada-{name}"), await scene.api.person(f"bob-{name}")
    task = await scene.api.task(ada)
    address = "/api/v1" + path.format(id=task["id"])
    answer = await scene.client.get(address, headers=bob.headers | {"Accept": accept})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("value", ["-1", "x", "1.5", "99999999999999999999", "\u0661"])
async def test_a_last_event_id_that_is_none_is_refused_by_name(scene: Scene, value: str) -> None:
    ada = await scene.api.person(f"last-{len(value)}{value.isascii()}")
    headers = ada.headers | {"Accept": "text/event-stream"}
    sent = [(name.encode(), text.encode()) for name, text in (headers | {"Last-Event-ID": value}).items()]
    answer = await scene.client.get("/api/v1/events", headers=sent)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "Last-Event-ID")


async def test_pages_of_all_events_go_on_where_the_last_one_ended(scene: Scene) -> None:
    ada = await scene.api.person("pages")
    start = (await scene.client.get("/api/v1/events", headers=ada.headers)).json()
    assert start["items"] == []
    tasks = [(await scene.api.task(ada))["id"] for _ in range(5)]
    after, seen = start["next_after"], []
    for _ in range(3):
        query = {"after": after, "limit": 2, "kind": "task.created"}
        page = (await scene.client.get("/api/v1/events", params=query, headers=ada.headers)).json()
        seen += [event["task_id"] for event in page["items"]]
        after = page["next_after"]
    assert seen == tasks
    newest = (await scene.client.get("/api/v1/events?limit=2", headers=ada.headers)).json()
    assert [event["task_id"] for event in newest["items"]] == tasks[-2:]


async def test_a_stream_that_is_resumed_gets_what_it_missed_from_the_table_and_then_what_follows(scene: Scene) -> None:
    ada = await scene.api.person("resume")
    async with stream(scene.client, "/events", ada.headers) as events:
        first = await scene.api.task(ada)
        assert [event.data["task_id"] for event in await events.take(1)] == [first["id"]]
    missed = [(await scene.api.task(ada))["id"] for _ in range(3)]
    await scene.api.sql(
        "INSERT INTO task_events (task_id, owner_id, kind, attempt) "
        "SELECT gen_random_uuid(), gen_random_uuid(), 'task.started', 1 FROM generate_series(1, 2500)"
    )
    async with stream(scene.client, "/events", ada.headers, last_id=events.last_id) as again:
        assert [event.data["task_id"] for event in await again.take(3)] == missed
        more = await scene.api.task(ada)
        assert [event.data["task_id"] for event in await again.take(1)] == [more["id"]]


async def test_streams_are_bounded_for_a_user_and_for_the_process(scene: Scene) -> None:
    people = [await scene.api.person(f"many{number}") for number in range(5)]
    async with contextlib.AsyncExitStack() as stack:
        for person in people[:4]:
            for _ in range(3):
                await stack.enter_async_context(stream(scene.client, "/events", person.headers))
        for person, status, code in ((people[0], 503, "no_stream_free"), (people[4], 503, "no_stream_free")):
            answer = await scene.client.get("/api/v1/events", headers=person.headers | STREAM)
            assert (answer.status_code, answer.json()["code"]) == (status, code)
            assert int(answer.headers["Retry-After"]) > 0
    await eventually_async(partial(has_room, scene))
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(stream(scene.client, "/events", people[0].headers))
        answer = await scene.client.get("/api/v1/events", headers=people[0].headers | STREAM)
        assert (answer.status_code, answer.json()["code"]) == (429, "too_many_streams")


async def test_an_open_stream_holds_nothing_of_the_request_that_opened_it(scene: Scene) -> None:
    ada = await scene.api.person("slim")
    async with stream(scene.client, "/events", ada.headers) as events:
        await scene.api.task(ada)
        assert [event.kind for event in await events.take(1)] == ["task.created"]
        gc.collect()
        assert not [held for held in gc.get_objects() if type(held) is Request]


async def has_room(scene: Scene) -> bool:
    return not scene.api.resources.feed.open_streams


async def test_a_stream_ends_with_its_token_and_with_its_account(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "ACCOUNTS_S", 0.1)
    ada, bob = await scene.api.person("expired"), await scene.api.person("disabled")
    tokens = scene.api.resources.tokens
    short = tokens.verify(ada.access)._replace(expires_at=time.time() + 1)
    monkeypatch.setitem(tokens._verified, ada.access, short)
    async with (
        stream(scene.client, "/events", ada.headers) as hers,
        stream(scene.client, "/events", bob.headers) as his,
    ):
        await scene.api.change_user(bob.email, disabled_at=datetime.now(UTC))
        assert [event.data["reason"] for event in await his.rest()] == ["account_changed"]
        assert [event.data["reason"] for event in await hers.rest()] == ["token_expired"]


async def test_streams_outlive_the_connections_of_the_hub(scene: Scene) -> None:
    ada = await scene.api.person("outage")
    task = await scene.api.task(ada)
    kill = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE 'taskflow-api-feed%'"
        " AND datname = current_database()"
    )
    async with (
        stream(scene.client, "/events", ada.headers) as all_,
        stream(scene.client, f"/tasks/{task['id']}/events", ada.headers) as one,
    ):
        await one.take(1)
        async with scene.api.resources.sessions() as session:
            assert await session.scalar(text(kill))
        await scene.client.post(f"/api/v1/tasks/{task['id']}:cancel", headers=ada.headers)
        assert [event.kind for event in await one.rest()] == ["task.canceled", "end"]
        assert [event.kind for event in await all_.until("task.canceled")][-1] == "task.canceled"


async def test_one_who_reads_late_loses_nothing_and_nothing_is_kept_for_them(scene: Scene) -> None:
    ada = await scene.api.person("late")
    count = 4000
    async with stream(scene.client, "/events", ada.headers) as events:
        await scene.api.sql(
            "INSERT INTO task_events (task_id, owner_id, kind, attempt, data) "
            "SELECT gen_random_uuid(), CAST(:owner AS uuid), 'task.failed', n, to_jsonb(array[repeat('x', 4000)]) "
            "FROM generate_series(1, :count) n",
            owner=ada.id,
            count=count,
        )
        await scene.client.get("/api/v1/events", headers=ada.headers)  # the hub has seen them
        assert scene.api.resources.feed.kept <= feed.KEPT
        attempts = [event.data["attempt"] for event in await events.take(count)]
    assert attempts == list(range(1, count + 1))


async def test_nothing_is_asked_of_postgresql_when_nobody_listens(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "IDLE_S", 0.1)
    await eventually_async(partial(has_room, scene))
    watching = text("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'taskflow-api-feed%'")

    async def is_quiet() -> bool:
        async with scene.api.resources.sessions() as session:
            return int(await session.scalar(watching) or 0) == 0

    await eventually_async(is_quiet)


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
