"""Tasks over HTTP: create, read, list, cancel, retry, attempts, files, and who sees what."""

import io
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from api_app import Api, Person, api_settings, running_api
from taskflow_api.rendering import task_body
from taskflow_api.schemas.tasks import TaskResource
from taskflow_core import files
from taskflow_core.clock import utc_now
from taskflow_core.identifiers import new_id
from taskflow_core.models.tasks import Task
from taskflow_core.models.users import Role
from taskflow_core.settings import Settings

FAIL = "UPDATE tasks SET status = 'FAILED', attempt = 1, finished_at = now() WHERE id = :id"


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Api]:
    async with running_api(api_settings(settings)) as api:
        yield api


@pytest.fixture
async def ada(api: Api) -> Person:
    return await api.person("ada")


async def test_a_created_task_is_stored_delivered_and_readable(api: Api, ada: Person) -> None:
    body = {
        "type": "LETTER",
        "title": "Hello",
        "payload": {"to": ["bob", "eve"], "extra": {"ä": [1.5, None, True]}},
        "queue": "high",
        "priority": -3,
        "max_attempts": 5,
        "dedup_key": "once",
        "tags": ["a", "b", "a"],
    }
    made = await api.client.post("/api/v1/tasks", json=body, headers=ada.headers)
    assert made.status_code == 201
    task = made.json()
    assert made.headers["location"] == f"/api/v1/tasks/{task['id']}"
    assert made.headers["etag"] == '"1"'
    assert set(task) == set(TaskResource.model_fields)
    expected = body | {"payload": {"copies": 1, **body["payload"]}, "tags": ["a", "b"]}  # type: ignore[dict-item]
    assert {name: task[name] for name in body} == expected
    assert (task["status"], task["state"], task["attempt"], task["timeout_s"]) == ("PENDING", "PENDING", 0, 77)
    assert task["owner_id"] == ada.id
    assert task["created_at"].endswith("Z")
    assert UUID(task["id"]).version == 7
    read = await api.client.get(made.headers["location"], headers=ada.headers)
    assert (read.status_code, read.json()) == (200, task)
    assert await api.resources.redis.llen("rq:queue:high:low") == 1


async def test_a_task_for_later_is_scheduled_and_not_delivered(api: Api, ada: Person) -> None:
    moment = datetime.now(UTC) + timedelta(hours=1)
    at = await api.task(ada, run_at=moment.astimezone().isoformat())
    delayed = await api.task(ada, delay_s=3600)
    assert {at["state"], delayed["state"]} == {"SCHEDULED"}
    assert datetime.fromisoformat(at["run_at"]) == moment
    assert abs(datetime.fromisoformat(delayed["run_at"]) - moment) < timedelta(minutes=5)
    assert await api.resources.redis.llen("rq:queue:default") == 0
    assert (await api.task(ada, run_at="2001-01-01T00:00:00+02:00"))["state"] == "PENDING"


async def test_a_second_open_task_of_the_same_dedup_key_is_refused_and_names_the_first(api: Api, ada: Person) -> None:
    first = await api.task(ada, dedup_key="report-1")
    body = {"type": "LETTER", "payload": {"to": []}, "dedup_key": "report-1"}
    refused = await api.client.post("/api/v1/tasks", json=body, headers=ada.headers)
    assert (refused.status_code, refused.json()["code"]) == (409, "duplicate_task")
    assert refused.json()["task_id"] == first["id"]
    assert (await api.rows())["tasks"] == 1


async def test_the_quota_of_unfinished_tasks_answers_429(settings: Settings) -> None:
    async with running_api(api_settings(settings, max_pending_tasks=2)) as api:
        ada = await api.person("ada")
        await api.task(ada)
        await api.task(ada)
        refused = await api.client.post(
            "/api/v1/tasks", json={"type": "LETTER", "payload": {"to": []}}, headers=ada.headers
        )
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many")
        assert int(refused.headers["retry-after"]) >= 1


async def test_a_task_is_accepted_while_redis_is_away(settings: Settings) -> None:
    async with running_api(api_settings(settings, redis_url="redis://127.0.0.1:1/0")) as api:
        ada = await api.person("ada")
        task = await api.task(ada)
        assert (await api.client.get(f"/api/v1/tasks/{task['id']}", headers=ada.headers)).status_code == 200
        ready = await api.client.get("/health/ready")
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")


async def test_cancel_ends_a_waiting_task_once(api: Api, ada: Person) -> None:
    task = await api.task(ada)
    canceled = await api.client.post(f"/api/v1/tasks/{task['id']}:cancel", headers=ada.headers)
    assert (canceled.status_code, canceled.json()["status"]) == (200, "CANCELED")
    assert canceled.json()["cancel_requested"] is True
    assert canceled.headers["etag"] == f'"{canceled.json()["version"]}"' != '"1"'
    again = await api.client.post(f"/api/v1/tasks/{task['id']}:cancel", headers=ada.headers)
    assert (again.status_code, again.json()["code"]) == (409, "illegal_transition")


async def test_retry_delivers_a_failed_task_again_and_no_other(api: Api, ada: Person) -> None:
    task = await api.task(ada)
    early = await api.client.post(f"/api/v1/tasks/{task['id']}:retry", headers=ada.headers)
    assert (early.status_code, early.json()["code"]) == (409, "illegal_transition")
    await api.sql(FAIL, id=task["id"])
    again = await api.client.post(f"/api/v1/tasks/{task['id']}:retry", headers=ada.headers)
    assert (again.status_code, again.json()["state"], again.json()["attempt"]) == (200, "PENDING", 0)
    assert await api.resources.redis.llen("rq:queue:default") == 2


async def test_cursor_pages_hold_every_task_once_also_while_new_ones_arrive(api: Api, ada: Person) -> None:
    made = [(await api.task(ada))["id"] for _ in range(7)]
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(3):
        query = {"limit": 3} | ({"cursor": cursor} if cursor else {})
        page = (await api.client.get("/api/v1/tasks", params=query, headers=ada.headers)).json()
        assert (page["limit"], page["total"], page["page"]) == (3, None, None)
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        await api.task(ada)
    assert cursor is None
    assert seen == made[::-1]


async def test_numbered_pages_count_the_total(api: Api, ada: Person) -> None:
    made = [(await api.task(ada))["id"] for _ in range(5)]
    page = (await api.client.get("/api/v1/tasks?page=2&limit=2", headers=ada.headers)).json()
    assert [item["id"] for item in page["items"]] == [made[2], made[1]]
    assert (page["total"], page["page"], page["limit"], page["next_cursor"]) == (5, 2, 2, None)
    beyond = (await api.client.get("/api/v1/tasks?page=9&limit=2", headers=ada.headers)).json()
    assert (beyond["items"], beyond["total"]) == ([], 5)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"status": "CANCELED"}, {"canceled"}),
        ({"status": "PENDING", "queue": "low"}, {"low"}),
        ({"tag": "red"}, {"tagged"}),
        ({"type": "LETTER", "tag": "red", "queue": "low"}, set()),
        ({"type": "EMAIL"}, set()),
        ({"created_to": "2001-01-01T00:00:00Z"}, set()),
        ({"created_from": "2001-01-01T00:00:00Z"}, {"canceled", "low", "tagged"}),
    ],
)
async def test_filters_choose(api: Api, ada: Person, query: dict[str, str], expected: set[str]) -> None:
    canceled = await api.task(ada, title="canceled")
    await api.client.post(f"/api/v1/tasks/{canceled['id']}:cancel", headers=ada.headers)
    await api.task(ada, title="low", queue="low")
    await api.task(ada, title="tagged", tags=["red", "blue"])
    for paging in ({}, {"page": "1"}):
        answer = await api.client.get("/api/v1/tasks", params=query | paging, headers=ada.headers)
        assert {item["title"] for item in answer.json()["items"]} == expected


async def test_a_cursor_of_another_filter_or_user_or_a_changed_one_is_refused(api: Api, ada: Person) -> None:
    bob = await api.person("bob")
    for _ in range(2):
        await api.task(ada)
    page = await api.client.get("/api/v1/tasks?limit=1", headers=ada.headers)
    cursor: str = page.json()["next_cursor"]
    changed = ("A" if cursor[0] != "A" else "B") + cursor[1:]
    attempts: list[tuple[dict[str, str], Person]] = [
        ({"cursor": changed}, ada),
        ({"cursor": cursor[:-4]}, ada),
        ({"cursor": cursor, "queue": "default"}, ada),
        ({"cursor": cursor}, bob),
        ({"cursor": "é"}, ada),
        ({"cursor": ""}, ada),
    ]
    for params, person in attempts:
        refused = await api.client.get("/api/v1/tasks", params=params, headers=person.headers)
        assert (refused.status_code, refused.json()["code"]) == (422, "bad_cursor"), params
        assert refused.json()["errors"][0]["field"] == "cursor"
    assert (await api.client.get("/api/v1/tasks", params={"cursor": cursor}, headers=ada.headers)).status_code == 200


async def test_a_foreign_task_does_not_exist(api: Api, ada: Person) -> None:
    bob = await api.person("bob")
    task = await api.task(ada)
    async with api.resources.sessions() as session:
        await files.write(
            session, UUID(task["id"]), name="a.txt", media_type="text/plain", source=io.BytesIO(b"secret")
        )
        await session.commit()
    routes = [
        ("GET", ""),
        ("POST", ":cancel"),
        ("POST", ":retry"),
        ("GET", "/attempts"),
        ("GET", "/files"),
        ("GET", "/files/a.txt"),
    ]
    for identifier in (task["id"], str(new_id())):
        for method, suffix in routes:
            answer = await api.client.request(method, f"/api/v1/tasks/{identifier}{suffix}", headers=bob.headers)
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), (method, suffix)
    assert (await api.client.get("/api/v1/tasks", headers=bob.headers)).json()["items"] == []
    assert (await api.client.get(f"/api/v1/tasks/{task['id']}", headers=ada.headers)).json() == task


async def test_an_operator_sees_all_tasks_and_may_choose_an_owner(api: Api, ada: Person) -> None:
    operator = await api.person("operator", role=Role.OPERATOR)
    bob = await api.person("bob")
    theirs = await api.task(ada)
    await api.task(bob)
    every = await api.client.get("/api/v1/tasks", headers=operator.headers)
    assert len(every.json()["items"]) == 2
    chosen = await api.client.get("/api/v1/tasks", params={"owner_id": ada.id}, headers=operator.headers)
    assert [item["id"] for item in chosen.json()["items"]] == [theirs["id"]]
    refused = await api.client.get("/api/v1/tasks", params={"owner_id": ada.id}, headers=bob.headers)
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    own = await api.client.get("/api/v1/tasks", params={"owner_id": ada.id}, headers=ada.headers)
    assert own.status_code == 200


async def test_attempts_are_listed_oldest_first(api: Api, ada: Person) -> None:
    task = await api.task(ada)
    for fence, outcome in enumerate(("retried", "completed"), start=1):
        await api.sql(
            "INSERT INTO task_attempts (task_id, fence, attempt, worker_id, outcome, started_at) "
            "VALUES (:id, :fence, :fence, 'w', :outcome, now())",
            id=task["id"],
            fence=fence,
            outcome=outcome,
        )
    answer = await api.client.get(f"/api/v1/tasks/{task['id']}/attempts", headers=ada.headers)
    assert [(item["attempt"], item["outcome"]) for item in answer.json()["items"]] == [(1, "retried"), (2, "completed")]


async def test_a_file_comes_back_whole_as_an_attachment(api: Api, ada: Person) -> None:
    task = await api.task(ada)
    content = bytes(range(256)) * 5000
    url = f"/api/v1/tasks/{task['id']}/files"
    async with api.resources.sessions() as session:
        await files.write(
            session, UUID(task["id"]), name='ä "1".csv', media_type="text/csv", source=io.BytesIO(content)
        )
        await session.commit()
    (entry,) = (await api.client.get(url, headers=ada.headers)).json()["items"]
    assert (entry["name"], entry["media_type"], entry["size"]) == ('ä "1".csv', "text/csv", len(content))
    answer = await api.client.get(f"{url}/{entry['name']}", headers=ada.headers)
    assert answer.content == content
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''%C3%A4%20%221%22.csv"
    assert (await api.client.get(f"{url}/other.csv", headers=ada.headers)).status_code == 404


async def test_task_types_describe_their_payloads(api: Api, ada: Person) -> None:
    (kind,) = (await api.client.get("/api/v1/task-types", headers=ada.headers)).json()["items"]
    assert (kind["name"], kind["summary"], kind["timeout_s"]) == ("LETTER", "Write a letter.", 77)
    assert kind["payload_schema"]["required"] == ["to"]
    assert kind["result_schema"]["properties"]["sent"]["type"] == "integer"


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"run_at": timedelta(hours=1)}, "SCHEDULED"),
        ({"run_at": timedelta(hours=-1)}, "PENDING"),
        ({"run_at": timedelta(hours=1), "attempt": 1}, "RETRYING"),
        ({"status": "RUNNING", "attempt": 1}, "RUNNING"),
        ({"status": "COMPLETED", "attempt": 1}, "COMPLETED"),
    ],
)
def test_the_state_is_computed_from_status_attempt_and_time(changes: dict[str, Any], state: str) -> None:
    now = utc_now()
    wait = changes.pop("run_at", timedelta())
    task = Task(id=new_id(), owner_id=new_id(), type="LETTER", payload={}, created_at=now, run_at=now + wait, **changes)
    assert task_body(task, now=now)["state"] == state


async def test_metrics_count_requests_by_template_and_tasks_by_type(api: Api, ada: Person) -> None:
    task = await api.task(ada)
    await api.client.get(f"/api/v1/tasks/{task['id']}", headers=ada.headers)
    await api.client.request("BREW", "/coffee")
    text = (await api.client.get("/metrics")).text
    assert 'taskflow_tasks_created_total{type="LETTER"} 1.0' in text
    assert 'taskflow_http_requests_total{method="GET",route="/api/v1/tasks/{task_id}",status="200"} 1.0' in text
    assert 'taskflow_http_requests_total{method="OTHER",route="(none)",status="404"} 1.0' in text
    assert task["id"] not in text
