"""Schedules over HTTP: make, read, list, pause, resume, delete, and who sees what."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from httpx2 import Response

from api_app import Api, Person, api_settings, running_api
from taskflow_api.schemas.schedules import ScheduleDetail, ScheduleResource
from taskflow_core.identifiers import new_id
from taskflow_core.models.users import Role
from taskflow_core.schedules import MAX_PER_OWNER
from taskflow_core.settings import Settings

URL = "/api/v1/schedules"
DAILY: dict[str, Any] = {
    "name": "daily",
    "cron": "0 9 * * *",
    "timezone": "Europe/Berlin",
    "task": {"type": "LETTER", "payload": {"to": ["bob"]}},
}


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Api]:
    async with running_api(api_settings(settings)) as api:
        yield api


@pytest.fixture
async def ada(api: Api) -> Person:
    return await api.person("ada")


async def add(api: Api, person: Person, **changes: Any) -> Response:
    return await api.client.post(URL, json=DAILY | changes, headers=person.headers)


async def test_a_schedule_is_made_read_and_deleted(api: Api, ada: Person) -> None:
    made = await add(api, ada, misfire="fire_once")
    assert made.status_code == 201, made.text
    schedule = made.json()
    assert set(schedule) == set(ScheduleDetail.model_fields)
    assert made.headers["location"] == f"{URL}/{schedule['id']}"
    assert (schedule["name"], schedule["misfire"], schedule["paused"], schedule["owner_id"]) == (
        "daily",
        "fire_once",
        False,
        ada.id,
    )
    assert schedule["task"]["payload"] == {"to": ["bob"]}
    read = await api.client.get(made.headers["location"], headers=ada.headers)
    assert read.json() == schedule
    gone = await api.client.delete(made.headers["location"], headers=ada.headers)
    assert (gone.status_code, gone.content) == (204, b"")
    assert (await api.client.get(made.headers["location"], headers=ada.headers)).status_code == 404
    assert (await api.client.delete(made.headers["location"], headers=ada.headers)).status_code == 404


async def test_the_next_five_firings_are_shown_in_utc(api: Api, ada: Person) -> None:
    schedule = (await add(api, ada)).json()
    shown = [datetime.fromisoformat(moment) for moment in schedule["next_firings"]]
    assert len(shown) == 5
    assert schedule["next_firings"][0] == schedule["next_fire_at"]
    assert {moment.hour for moment in shown} <= {7, 8}
    assert shown[4] - shown[0] <= timedelta(days=4, hours=1)


async def test_pausing_and_resuming_can_be_repeated(api: Api, ada: Person) -> None:
    url = f"{URL}/{(await add(api, ada)).json()['id']}"
    for _ in range(2):
        paused = (await api.client.post(f"{url}:pause", headers=ada.headers)).json()
        assert (paused["paused"], paused["next_fire_at"], paused["next_firings"]) == (True, None, [])
    await api.sql("UPDATE schedules SET next_fire_at = now() - interval '1 day', paused_reason = 'broken'")
    for _ in range(2):
        resumed = (await api.client.post(f"{url}:resume", headers=ada.headers)).json()
        assert (resumed["paused"], resumed["paused_reason"]) == (False, None)
        assert resumed["next_fire_at"] == resumed["next_firings"][0]


async def test_a_schedule_whose_type_is_gone_is_not_resumed(api: Api, ada: Person) -> None:
    url = f"{URL}/{(await add(api, ada)).json()['id']}"
    await api.client.post(f"{url}:pause", headers=ada.headers)
    await api.sql("""UPDATE schedules SET template = template || '{"type": "GONE"}'""")
    refused = await api.client.post(f"{url}:resume", headers=ada.headers)
    assert (refused.status_code, refused.json()["code"]) == (422, "unknown_type")
    assert refused.json()["errors"][0]["field"] == "task.type"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"cron": "* * * *"}, "cron"),
        ({"cron": "x" * 101}, "cron"),
        ({"timezone": "Mars/Olympus"}, "timezone"),
        ({"misfire": "explode"}, "misfire"),
        ({"name": ""}, "name"),
        ({"nmae": "x"}, "nmae"),
        ({"task": {"type": "NOPE", "payload": {}}}, "task.type"),
        ({"task": {"type": "LETTER", "payload": {}}}, "task.payload.to"),
        ({"task": {"type": "LETTER", "payload": {"to": []}, "queue": "No Queue"}}, "task.queue"),
        ({"task": {"type": "LETTER", "payload": {"to": []}, "run_at": "2030-01-01T00:00:00Z"}}, "task.run_at"),
        ({"task": {"type": "LETTER", "payload": {"to": ["a\0"]}}}, "task.payload.to.0"),
    ],
)
async def test_a_bad_schedule_is_refused_by_its_field(
    api: Api, ada: Person, changes: dict[str, Any], field: str
) -> None:
    refused = await add(api, ada, **changes)
    assert refused.status_code == 422, refused.text
    assert field in [error["field"] for error in refused.json()["errors"]]
    assert (await api.client.get(URL, headers=ada.headers)).json()["items"] == []


async def test_pages_hold_every_schedule_once(api: Api, ada: Person) -> None:
    made = [(await add(api, ada)).json()["id"] for _ in range(5)]
    seen: list[str] = []
    cursor: dict[str, str] = {}
    for _ in range(3):
        page = (await api.client.get(URL, params={"limit": "2"} | cursor, headers=ada.headers)).json()
        seen += [item["id"] for item in page["items"]]
        cursor = {"cursor": page["next_cursor"]}
    assert set(page["items"][0]) == set(ScheduleResource.model_fields)
    assert seen == made[::-1]
    assert page["next_cursor"] is None
    refused = await api.client.get(URL, params={"cursor": "x"}, headers=ada.headers)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "cursor")


async def test_a_foreign_schedule_does_not_exist_except_for_an_operator(api: Api, ada: Person) -> None:
    bob, operator = await api.person("bob"), await api.person("operator", role=Role.OPERATOR)
    mine = (await add(api, ada)).json()["id"]
    for identifier in (mine, str(new_id())):
        for method, suffix in (("GET", ""), ("POST", ":pause"), ("POST", ":resume"), ("DELETE", ""), ("PATCH", "")):
            answer = await api.client.request(
                method, f"{URL}/{identifier}{suffix}", headers=bob.headers, json={"name": "mine"}
            )
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), (method, suffix)
    assert (await api.client.get(URL, headers=bob.headers)).json()["items"] == []
    assert [item["id"] for item in (await api.client.get(URL, headers=operator.headers)).json()["items"]] == [mine]


async def test_the_number_of_schedules_of_one_owner_is_bounded(api: Api, ada: Person) -> None:
    await api.sql(
        "INSERT INTO schedules (id, owner_id, name, cron, template) "
        "SELECT gen_random_uuid(), :owner, 's', '* * * * *', '{}' FROM generate_series(1, :most)",
        owner=ada.id,
        most=MAX_PER_OWNER,
    )
    refused = await add(api, ada)
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many")


async def test_the_tasks_of_a_schedule_can_be_listed(api: Api, ada: Person) -> None:
    schedule_id = (await add(api, ada)).json()["id"]
    task = await api.task(ada)
    await api.task(ada)
    await api.sql("UPDATE tasks SET schedule_id = :of, fire_at = now() WHERE id = :id", of=schedule_id, id=task["id"])
    listed = await api.client.get("/api/v1/tasks", params={"schedule_id": schedule_id}, headers=ada.headers)
    (found,) = listed.json()["items"]
    assert (found["id"], found["schedule_id"], found["fire_at"] is not None) == (task["id"], schedule_id, True)


async def edit(api: Api, person: Person, url: str, body: Any, **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await api.client.patch(url, json=body, headers=person.headers | named)


async def test_every_field_of_a_schedule_can_be_changed(api: Api, ada: Person) -> None:
    made = await add(api, ada)
    url = made.headers["location"]
    task = {"type": "LETTER", "payload": {"to": ["eve"]}, "queue": "low"}
    changes = {"name": "hourly", "cron": "5 * * * *", "timezone": "UTC", "misfire": "fire_once", "task": task}
    changed = await edit(api, ada, url, changes)
    assert changed.status_code == 200, changed.text
    body = changed.json()
    assert {name: body[name] for name in changes if name != "task"} | {"task": task} == changes
    assert (body["task"]["queue"], body["task"]["max_attempts"]) == ("low", 3)
    assert (datetime.fromisoformat(body["next_fire_at"]).minute, body["next_fire_at"]) == (5, body["next_firings"][0])
    assert (await api.client.get(url, headers=ada.headers)).json() == body
    await api.client.post(f"{url}:pause", headers=ada.headers)
    renamed = (await edit(api, ada, url, {"name": "other", "cron": "6 * * * *"})).json()
    assert (renamed["paused"], renamed["next_fire_at"], renamed["name"]) == (True, None, "other")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({}, ""),
        ({"cron": "* * * *"}, "cron"),
        ({"cron": None}, "cron"),
        ({"timezone": "Mars/Olympus"}, "timezone"),
        ({"task": None}, "task"),
        ({"task": {"type": "LETTER", "payload": {}}}, "task.payload.to"),
        ({"paused": True}, "paused"),
        ({"owner_id": "x"}, "owner_id"),
        ({"next_fire_at": "2030-01-01T00:00:00Z"}, "next_fire_at"),
    ],
)
async def test_a_bad_change_of_a_schedule_is_refused_by_its_field(
    api: Api, ada: Person, changes: dict[str, Any], field: str
) -> None:
    made = await add(api, ada)
    refused = await edit(api, ada, made.headers["location"], changes)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, field), refused.text
    assert (await api.client.get(made.headers["location"], headers=ada.headers)).json() == made.json()


async def test_a_schedule_that_has_changed_or_fired_is_not_changed_by_who_has_not_seen_it(
    api: Api, ada: Person
) -> None:
    made = await add(api, ada)
    url, seen = made.headers["location"], made.headers["etag"]
    assert (await api.client.get(url, headers=ada.headers)).headers["etag"] == seen
    changed = await edit(api, ada, url, {"name": "x"}, If_Match=seen)
    assert changed.status_code == 200
    stale = ada.headers | {"If-Match": seen}
    answers = [
        await edit(api, ada, url, {"name": "y"}, If_Match=seen),
        await api.client.post(f"{url}:pause", headers=stale),
        await api.client.post(f"{url}:resume", headers=stale),
        await api.client.delete(url, headers=stale),
    ]
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(412, "stale_version")] * 4
    await api.sql("UPDATE schedules SET last_fire_at = now(), updated_at = now()")
    refused = await edit(api, ada, url, {"name": "y"}, If_Match=changed.headers["etag"])
    assert (refused.status_code, refused.json()["code"]) == (412, "stale_version")
    assert (await api.client.delete(url, headers=ada.headers | {"If-Match": "*"})).status_code == 204
