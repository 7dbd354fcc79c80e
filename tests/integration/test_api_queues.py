"""Queues over HTTP: how they stand, and who may pause them."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from api_app import Api, Person, api_settings, running_api
from taskflow_core.models.users import Role
from taskflow_core.queues import MAX_LISTED
from taskflow_core.settings import Settings

URL = "/api/v1/queues"
WORKER = """
INSERT INTO workers (id, name, hostname, pid, queues, slots, version, held)
SELECT 'w', 'w', 'h', 1, '{high,default}', 1, '1', array_agg(id) FROM tasks WHERE queue = 'busy' AND title = 'runs'
"""
RUN = """
UPDATE tasks SET status = 'RUNNING', worker_id = 'w', lease_expires_at = now(), attempt = 1 WHERE title = 'runs'
"""


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Api]:
    async with running_api(api_settings(settings)) as api:
        yield api


@pytest.fixture
async def ada(api: Api) -> Person:
    return await api.person("ada")


@pytest.fixture
async def operator(api: Api) -> Person:
    return await api.person("operator", role=Role.OPERATOR)


async def listed(api: Api, person: Person) -> dict[str, dict[str, Any]]:
    answer = await api.client.get(URL, headers=person.headers)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    assert [item["name"] for item in items] == sorted(item["name"] for item in items)
    return {item["name"]: item for item in items}


async def test_a_platform_without_tasks_has_no_queues(api: Api, ada: Person) -> None:
    assert await listed(api, ada) == {}


async def test_waiting_and_running_tasks_of_all_lanes_are_counted(api: Api, ada: Person) -> None:
    for priority in (-1, 0, 0, 1):
        await api.task(ada, queue="busy", priority=priority)
    await api.task(ada, queue="busy", title="runs")
    await api.task(ada, queue="later", delay_s=60)
    done = await api.task(ada, queue="done")
    await api.client.post(f"/api/v1/tasks/{done['id']}:cancel", headers=ada.headers)
    await api.sql("UPDATE tasks SET enqueued_at = now() - interval '90 seconds' WHERE priority = -1")
    await api.sql(WORKER)
    await api.sql(RUN)
    found = await listed(api, ada)
    assert set(found) == {"busy", "default", "high"}
    busy = found["busy"]
    assert (busy["waiting"], busy["running"], busy["paused"], busy["paused_at"]) == (4, 1, False, None)
    assert 90 <= busy["oldest_age_s"] < 150
    empty = found["high"]
    assert (empty["waiting"], empty["running"], empty["oldest_age_s"]) == (0, 0, None)


async def test_an_operator_pauses_and_resumes_a_queue_and_may_repeat_it(
    api: Api, ada: Person, operator: Person
) -> None:
    await api.task(ada, queue="mail")
    first = await api.client.post(f"{URL}/mail:pause", headers=operator.headers)
    assert first.status_code == 200, first.text
    assert (first.json()["paused"], first.json()["waiting"]) == (True, 1)
    again = await api.client.post(f"{URL}/mail:pause", headers=operator.headers)
    assert again.json()["paused_at"] == first.json()["paused_at"]
    assert (await listed(api, ada))["mail"]["paused"] is True
    for _ in range(2):
        resumed = await api.client.post(f"{URL}/mail:resume", headers=operator.headers)
        assert (resumed.json()["paused"], resumed.json()["paused_at"]) == (False, None)


async def test_a_queue_can_be_paused_before_it_is_used(api: Api, operator: Person) -> None:
    assert (await api.client.post(f"{URL}/new.one:pause", headers=operator.headers)).json()["waiting"] == 0
    assert (await listed(api, operator))["new.one"]["paused"] is True


@pytest.mark.parametrize("verb", ["pause", "resume"])
async def test_a_user_may_not_control_queues(api: Api, ada: Person, verb: str) -> None:
    refused = await api.client.post(f"{URL}/default:{verb}", headers=ada.headers)
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert (await api.client.post(f"{URL}/default:{verb}")).status_code == 401
    assert (await listed(api, ada)) == {}


async def test_a_name_that_no_queue_can_have_is_refused(api: Api, operator: Person) -> None:
    refused = await api.client.post(f"{URL}/No Queue:pause", headers=operator.headers)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "name")


async def test_of_very_many_queues_those_that_somebody_serves_are_listed_first(
    api: Api, ada: Person, operator: Person
) -> None:
    await api.sql(
        "INSERT INTO tasks (id, owner_id, type, queue, lane, payload, created_at, enqueued_at) "
        "SELECT gen_random_uuid(), gen_random_uuid(), 'LETTER', 'a' || n, 'a' || n, '{}', now(), now() "
        "FROM generate_series(1, :many) n",
        many=MAX_LISTED + 20,
    )
    await api.client.post(f"{URL}/zulu:pause", headers=operator.headers)
    found = await listed(api, ada)
    assert len(found) == MAX_LISTED
    assert "zulu" in found
