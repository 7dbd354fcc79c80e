"""Many tasks are retried or canceled at once, or none."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from httpx2 import Response
from sqlalchemy import text

from api_app import Api, Person, api_settings, running_api
from taskflow_core.lanes import CROWD
from taskflow_core.models.users import Role
from taskflow_core.settings import Settings

FAIL = """
UPDATE tasks SET status = 'FAILED', attempt = 2, finished_at = now(), error = CAST(:error AS jsonb) WHERE title = 'bad'
"""
RUN = "UPDATE tasks SET status = 'RUNNING', worker_id = 'w', lease_expires_at = now(), attempt = 1 WHERE id = :id"
MANY = """
INSERT INTO tasks (id, owner_id, type, queue, lane, payload, created_at, status, finished_at)
SELECT gen_random_uuid(), :owner, 'LETTER', 'default', 'default', '{}', now(), 'FAILED', now()
FROM generate_series(1, :many)
"""


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Api]:
    async with running_api(api_settings(settings)) as api:
        yield api


@pytest.fixture
async def ada(api: Api) -> Person:
    return await api.person("ada")


async def failed(api: Api, person: Person, *, code: str = "timeout", **fields: Any) -> str:
    task = await api.task(person, title="bad", **fields)
    await api.sql(FAIL, error=f'{{"code": "{code}", "message": "m"}}')
    await api.sql("UPDATE tasks SET title = '' WHERE title = 'bad'")
    identifier: str = task["id"]
    return identifier


async def retry(api: Api, person: Person, count: int, **filters: Any) -> Response:
    body = {"filter": filters, "expected_count": count}
    return await api.client.post("/api/v1/tasks:bulkRetry", json=body, headers=person.headers)


async def cancel(api: Api, person: Person, count: int, **filters: Any) -> Response:
    body = {"filter": filters, "expected_count": count}
    return await api.client.post("/api/v1/tasks:bulkCancel", json=body, headers=person.headers)


async def states(api: Api, person: Person) -> dict[str, str]:
    answer = await api.client.get("/api/v1/tasks?limit=100", headers=person.headers)
    return {item["id"]: item["status"] for item in answer.json()["items"]}


async def test_all_failed_tasks_of_the_filter_wait_again_and_are_delivered(api: Api, ada: Person) -> None:
    wanted = {await failed(api, ada, queue="low") for _ in range(3)}
    others = {
        await failed(api, ada),
        await failed(api, ada, queue="low", code="exception"),
        (await api.task(ada, queue="low"))["id"],
    }
    await api.resources.redis.flushall()
    done = await retry(api, ada, 3, queue="low", error_code="timeout")
    assert (done.status_code, done.json()) == (200, {"retried": 3, "skipped": 0}), done.text
    after = await states(api, ada)
    assert {after[task_id] for task_id in wanted} == {"PENDING"}
    assert sorted(after[task_id] for task_id in others) == ["FAILED", "FAILED", "PENDING"]
    assert await api.resources.redis.llen("rq:queue:low") == 3
    task = (await api.client.get(f"/api/v1/tasks/{wanted.pop()}", headers=ada.headers)).json()
    assert (task["attempt"], task["error"], task["finished_at"], task["version"]) == (0, None, None, 2)
    async with api.resources.sessions() as session:
        kinds = text("SELECT kind, attempt FROM task_events WHERE task_id = :id ORDER BY id")
        rows = (await session.execute(kinds, {"id": task["id"]})).all()
    assert [tuple(row) for row in rows] == [("task.created", 0), ("task.retried_by_hand", 2)]


@pytest.mark.parametrize("count", [1, 3])
async def test_another_number_than_expected_changes_nothing(api: Api, ada: Person, count: int) -> None:
    for _ in range(2):
        await failed(api, ada)
    refused = await retry(api, ada, count)
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert refused.json()["detail"].startswith("2 FAILED tasks match the filter")
    assert set((await states(api, ada)).values()) == {"FAILED"}


async def test_of_tasks_that_share_a_dedup_key_one_is_retried_and_none_beside_an_unfinished_one(
    api: Api, ada: Person
) -> None:
    older, newer = [await failed(api, ada, dedup_key="a") for _ in range(2)]
    held = await failed(api, ada, dedup_key="b")
    await api.task(ada, dedup_key="b")
    done = await retry(api, ada, 3)
    assert done.json() == {"retried": 1, "skipped": 2}
    after = await states(api, ada)
    assert (after[older], after[newer], after[held]) == ("FAILED", "PENDING", "FAILED")


async def test_two_bulk_retries_at_once_retry_each_task_once(api: Api, ada: Person) -> None:
    for _ in range(5):
        await failed(api, ada)
    answers = await asyncio.gather(*(retry(api, ada, 5) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409]


async def test_a_crowd_goes_to_the_low_lane(api: Api, ada: Person) -> None:
    await api.sql(MANY, owner=ada.id, many=CROWD + 1)
    assert (await retry(api, ada, CROWD + 1)).json() == {"retried": CROWD + 1, "skipped": 0}
    assert await api.resources.redis.llen("rq:queue:default:low") == CROWD + 1


async def test_more_than_the_bound_asks_for_a_narrower_filter(api: Api, ada: Person) -> None:
    await api.sql(MANY, owner=ada.id, many=10_001)
    refused = await retry(api, ada, 10_000)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "filter")


async def test_a_bulk_retry_reaches_ones_own_tasks_and_an_operators_reaches_all(api: Api, ada: Person) -> None:
    bob, operator = await api.person("bob"), await api.person("operator", role=Role.OPERATOR)
    await failed(api, ada)
    await failed(api, bob)
    refused = await retry(api, bob, 1, owner_id=ada.id)
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert (await retry(api, bob, 1)).json()["retried"] == 1
    assert set((await states(api, ada)).values()) == {"FAILED"}
    assert (await retry(api, operator, 1, owner_id=ada.id)).json()["retried"] == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "filter"),
        ({"filter": {}}, "expected_count"),
        ({"filter": {}, "expected_count": 0}, "expected_count"),
        ({"filter": {}, "expected_count": 10_001}, "expected_count"),
        ({"filter": {"status": "COMPLETED"}, "expected_count": 1}, "filter.status"),
        ({"filter": {"error_code": ""}, "expected_count": 1}, "filter.error_code"),
        ({"filter": {"type": ["A"] * 21}, "expected_count": 1}, "filter.type"),
    ],
)
async def test_a_bad_body_is_refused_by_its_field(api: Api, ada: Person, body: dict[str, Any], field: str) -> None:
    refused = await api.client.post("/api/v1/tasks:bulkRetry", json=body, headers=ada.headers)
    assert refused.status_code == 422
    assert field in [error["field"] for error in refused.json()["errors"]]


async def test_tasks_are_listed_by_their_error_code(api: Api, ada: Person) -> None:
    wanted = await failed(api, ada, code="timeout")
    await failed(api, ada, code="exception")
    answer = await api.client.get("/api/v1/tasks?status=FAILED&error_code=timeout&page=1", headers=ada.headers)
    assert [item["id"] for item in answer.json()["items"]] == [wanted]
    assert answer.json()["total"] == 1


async def test_unfinished_tasks_of_the_filter_are_canceled_and_those_that_run_are_asked(api: Api, ada: Person) -> None:
    waiting, later, running = [(await api.task(ada, queue="low", **more))["id"] for more in ({}, {"delay_s": 60}, {})]
    other, done = (await api.task(ada))["id"], await failed(api, ada, queue="low")
    await api.sql(RUN, id=running)
    answer = await cancel(api, ada, 3, queue="low")
    assert (answer.status_code, answer.json()) == (200, {"canceled": 2, "asked": 1}), answer.text
    after = await states(api, ada)
    assert [after[task] for task in (waiting, later, running, other, done)] == [
        "CANCELED",
        "CANCELED",
        "RUNNING",
        "PENDING",
        "FAILED",
    ]
    task = (await api.client.get(f"/api/v1/tasks/{running}", headers=ada.headers)).json()
    assert (task["cancel_requested"], task["version"]) == (True, 2)
    assert (await cancel(api, ada, 1, queue="low")).json() == {"canceled": 0, "asked": 1}
    again = (await api.client.get(f"/api/v1/tasks/{running}", headers=ada.headers)).json()
    assert again == task, "asked once"
    async with api.resources.sessions() as session:
        kinds = await session.execute(text("SELECT kind, count(*) FROM task_events GROUP BY kind ORDER BY kind"))
        counted = {str(kind): int(count) for kind, count in kinds}
    assert (counted["task.canceled"], counted["task.cancel_requested"]) == (2, 1)


async def test_a_bulk_cancel_heeds_the_count_the_status_and_the_owner(api: Api, ada: Person) -> None:
    bob = await api.person("bob")
    for _ in range(2):
        await api.task(ada)
    for count in (1, 3):
        refused = await cancel(api, ada, count)
        assert (refused.status_code, refused.json()["detail"][:30]) == (409, "2 unfinished tasks match the f")
    assert (await cancel(api, bob, 2)).status_code == 409
    assert (await cancel(api, bob, 2, owner_id=ada.id)).status_code == 403
    assert (await cancel(api, ada, 2, status="RUNNING")).status_code == 409
    assert (await cancel(api, ada, 2, status="FAILED")).status_code == 422
    assert set((await states(api, ada)).values()) == {"PENDING"}
    assert (await cancel(api, ada, 2, status=["PENDING", "RUNNING"])).json() == {"canceled": 2, "asked": 0}


async def test_two_bulk_cancels_at_once_cancel_each_task_once(api: Api, ada: Person) -> None:
    for _ in range(5):
        await api.task(ada)
    answers = await asyncio.gather(*(cancel(api, ada, 5) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409]
