"""Tasks are changed, deleted and copied over HTTP, and only by who has seen their newest version."""

import asyncio
import io
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from httpx2 import Response
from sqlalchemy import text

from api_app import Api, Person, api_settings, running_api
from taskflow_api.schemas.tasks import TaskResource
from taskflow_core import files
from taskflow_core.settings import Settings

TASKS = "/api/v1/tasks"
FINISH = "UPDATE tasks SET status = 'COMPLETED', finished_at = now() WHERE id = :id"
RUN = "UPDATE tasks SET status = 'RUNNING', worker_id = 'w', lease_expires_at = now(), attempt = 1 WHERE id = :id"
HISTORY = ("task_attempts", "task_events", "task_logs", "task_files")


@pytest.fixture(scope="module")
async def api(module_settings: Settings) -> AsyncIterator[Api]:
    async with running_api(api_settings(module_settings)) as api:
        yield api


@pytest.fixture(scope="module")
async def ada(api: Api) -> Person:
    return await api.person("ada")


@pytest.fixture(autouse=True)
async def no_deliveries(api: Api) -> None:
    await api.resources.redis.flushall()


async def send(api: Api, person: Person, method: str, path: str, body: Any = None, **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await api.client.request(method, f"{TASKS}/{path}", json=body, headers=person.headers | named)


async def length(api: Api, lane: str) -> int:
    return int(await api.resources.redis.llen(f"rq:queue:{lane}"))


async def test_every_field_of_a_waiting_task_can_be_changed_at_once(api: Api, ada: Person) -> None:
    task = await api.task(ada, delay_s=60)
    changes = {
        "title": "New",
        "tags": ["b", "a", "b"],
        "queue": "mail",
        "priority": 7,
        "run_at": "2031-01-01T00:00:00Z",
        "max_attempts": 9,
        "timeout_s": 5,
    }
    changed = await send(api, ada, "PATCH", task["id"], changes)
    assert changed.status_code == 200, changed.text
    body = changed.json()
    assert set(body) == set(TaskResource.model_fields)
    assert {name: body[name] for name in changes} == changes | {"tags": ["b", "a"]}
    assert (body["state"], body["version"], changed.headers["etag"]) == ("SCHEDULED", 2, '"2"')
    assert (await send(api, ada, "GET", task["id"])).json() == body
    async with api.resources.sessions() as session:
        kinds = await session.execute(text("SELECT kind FROM task_events WHERE task_id = :id ORDER BY id"), task)
        assert list(kinds.scalars()) == ["task.created", "task.edited"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, ""),
        ({"status": "COMPLETED"}, "status"),
        ({"owner_id": "x"}, "owner_id"),
        ({"fence": 7}, "fence"),
        ({"attempt": 0}, "attempt"),
        ({"payload": {}}, "payload"),
        ({"row_version": 1, "title": "x"}, "row_version"),
        ({"title": None}, "title"),
        ({"run_at": None}, "run_at"),
        ({"delay_s": None}, "delay_s"),
        ({"run_at": "2031-01-01T00:00:00Z", "delay_s": 1}, "delay_s"),
        ({"queue": "No Queue"}, "queue"),
        ({"priority": "1"}, "priority"),
        ({"max_attempts": 0}, "max_attempts"),
        ({"tags": ["x"] * 21}, "tags"),
    ],
)
async def test_a_bad_change_is_refused_by_its_field(api: Api, ada: Person, body: dict[str, Any], field: str) -> None:
    task = await api.task(ada)
    refused = await send(api, ada, "PATCH", task["id"], body)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, field), refused.text
    assert (await send(api, ada, "GET", task["id"])).json()["version"] == 1


async def test_a_task_that_runs_or_has_ended_keeps_its_plan_but_not_its_labels(api: Api, ada: Person) -> None:
    for statement in (RUN, FINISH):
        task = await api.task(ada)
        await api.sql(statement, id=task["id"])
        refused = await send(api, ada, "PATCH", task["id"], {"title": "x", "queue": "a", "priority": 1})
        assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
        assert "priority, queue" in refused.json()["detail"]
        labelled = await send(api, ada, "PATCH", task["id"], {"title": "x", "tags": ["t"]})
        assert (labelled.json()["title"], labelled.json()["tags"], labelled.json()["version"]) == ("x", ["t"], 2)


async def test_max_attempts_may_not_fall_to_what_was_used(api: Api, ada: Person) -> None:
    task = await api.task(ada)
    await api.sql("UPDATE tasks SET attempt = 2 WHERE id = :id", id=task["id"])
    refused = await send(api, ada, "PATCH", task["id"], {"max_attempts": 2})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "max_attempts")
    assert (await send(api, ada, "PATCH", task["id"], {"max_attempts": 3})).json()["max_attempts"] == 3


async def test_a_delivery_follows_its_task(api: Api, ada: Person) -> None:
    task = await api.task(ada)
    for changes, lane in (
        ({"queue": "mail"}, "mail"),
        ({"priority": 5}, "mail:high"),
        ({"title": "the same lane"}, "mail:high"),
        ({"run_at": "2001-01-01T00:00:00Z"}, "mail:high"),
        ({"priority": -5, "queue": "default"}, "default:low"),
    ):
        await send(api, ada, "PATCH", task["id"], changes)
        lengths = {name: await length(api, name) for name in ("default", "default:low", "mail", "mail:high")}
        assert {name for name, tasks in lengths.items() if tasks == 1} == {lane}, changes
        assert sum(lengths.values()) == 1
    later = await send(api, ada, "PATCH", task["id"], {"delay_s": 3600})
    assert (later.json()["state"], await length(api, "default:low")) == ("SCHEDULED", 0)
    moment = datetime.fromisoformat(later.json()["run_at"]) - datetime.now(UTC)
    assert timedelta(minutes=55) < moment < timedelta(minutes=65)
    now = await send(api, ada, "PATCH", task["id"], {"delay_s": 0})
    assert (now.json()["state"], await length(api, "default:low")) == ("PENDING", 1)


async def test_a_finished_task_is_deleted_with_all_that_belongs_to_it(api: Api, ada: Person) -> None:
    task, other = await api.task(ada), await api.task(ada)
    for statement in ("", RUN):
        if statement:
            await api.sql(statement, id=task["id"])
        refused = await send(api, ada, "DELETE", task["id"])
        assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    for kept in (task, other):
        async with api.resources.sessions() as session:
            await files.write(session, UUID(kept["id"]), name="f", media_type="text/csv", source=io.BytesIO(b"x"))
            await session.commit()
        await api.sql(
            "INSERT INTO task_attempts (task_id, fence, attempt, worker_id, outcome, started_at) "
            "VALUES (:id, 1, 1, 'w', 'completed', now())",
            id=kept["id"],
        )
        await api.sql("INSERT INTO task_logs (task_id, attempt, level, message) VALUES (:id, 1, 'info', 'm')", **kept)
    await api.sql("UPDATE tasks SET lease_expires_at = NULL, status = 'PENDING' WHERE id = :id", id=task["id"])
    await api.sql(FINISH, id=task["id"])
    gone = await send(api, ada, "DELETE", task["id"])
    assert (gone.status_code, gone.content) == (204, b"")
    assert (await send(api, ada, "GET", task["id"])).status_code == 404
    assert (await send(api, ada, "DELETE", task["id"])).status_code == 404
    async with api.resources.sessions() as session:
        for table in HISTORY:
            left = await session.execute(text(f"SELECT DISTINCT task_id::text FROM {table}"))  # noqa: S608 - constants
            ids = set(left.scalars())
            assert task["id"] not in ids, table
            assert other["id"] in ids, table


async def test_a_copy_has_what_was_asked_for_but_no_history(api: Api, ada: Person) -> None:
    fields = {"title": "t", "queue": "mail", "priority": -2, "max_attempts": 5, "timeout_s": 9, "tags": ["x"]}
    task = await api.task(ada, **fields, dedup_key="once", delay_s=60, payload={"to": ["bob"], "copies": 4})
    await api.sql(FINISH, id=task["id"])
    made = await api.client.post(f"{TASKS}/{task['id']}:clone", headers=ada.headers)
    assert made.status_code == 201, made.text
    copy = made.json()
    assert made.headers["location"] == f"{TASKS}/{copy['id']}"
    assert made.headers["etag"] == '"1"'
    assert {name: copy[name] for name in fields} == fields
    assert copy["id"] != task["id"]
    assert (copy["payload"], copy["status"], copy["state"]) == (task["payload"], "PENDING", "PENDING")
    assert (copy["dedup_key"], copy["attempt"], copy["result"]) == (None, 0, None)
    assert await length(api, "mail:low") == 1
    body = {"payload": {"to": ["eve"]}, "title": "", "queue": "low", "delay_s": 60, "dedup_key": "twice", "tags": []}
    other = (await send(api, ada, "POST", f"{task['id']}:clone", body)).json()
    assert {name: other[name] for name in ("title", "queue", "dedup_key", "tags")} == {
        name: body[name] for name in ("title", "queue", "dedup_key", "tags")
    }
    assert (other["payload"]["to"], other["state"], other["priority"]) == (["eve"], "SCHEDULED", -2)


async def test_a_copy_is_made_once_per_idempotency_key(api: Api, ada: Person) -> None:
    task, second = await api.task(ada), await api.task(ada)
    before = (await api.rows())["tasks"]
    path = f"{task['id']}:clone"
    answers = await asyncio.gather(*(send(api, ada, "POST", path, {}, Idempotency_Key="k") for _ in range(5)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert (await api.rows())["tasks"] == before + 1
    for other, body in ((task["id"], {"title": "x"}), (second["id"], {})):
        mismatch = await send(api, ada, "POST", f"{other}:clone", body, Idempotency_Key="k")
        assert (mismatch.status_code, mismatch.json()["code"]) == (422, "idempotency_mismatch")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"type": "LETTER"}, "type"),
        ({"payload": {"to": 7}}, "payload.to"),
        ({"status": "COMPLETED"}, "status"),
        ({"dedup_key": ""}, "dedup_key"),
    ],
)
async def test_a_bad_copy_is_refused_by_its_field(api: Api, ada: Person, body: dict[str, Any], field: str) -> None:
    task = await api.task(ada)
    before = await api.rows()
    refused = await send(api, ada, "POST", f"{task['id']}:clone", body)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, field)
    assert await api.rows() == before


async def test_a_copy_of_a_type_that_is_gone_is_refused(api: Api, ada: Person) -> None:
    task = await api.task(ada)
    await api.sql("UPDATE tasks SET type = 'GONE' WHERE id = :id", id=task["id"])
    refused = await send(api, ada, "POST", f"{task['id']}:clone")
    assert (refused.status_code, refused.json()["code"]) == (422, "unknown_type")


@pytest.mark.parametrize(
    ("tags", "status"),
    [
        ('"1"', 200),
        ('"7", "1"', 200),
        ('"7" ,, "1",', 200),
        ("*", 200),
        ('"2"', 412),
        ('W/"1"', 412),
        ('"01"', 412),
        ('"1', 422),
        ("1", 422),
        ('"1" "2"', 422),
        ('"1", *', 422),
        ("", 422),
        (", ".join(f'"{number}"' for number in range(1000)), 422),
    ],
)
async def test_a_change_can_be_bound_to_the_version_that_was_read(
    api: Api, ada: Person, tags: str, status: int
) -> None:
    task = await api.task(ada)
    answer = await send(api, ada, "PATCH", task["id"], {"title": "x"}, If_Match=tags)
    assert answer.status_code == status, answer.text
    if status == 412:
        assert answer.json()["code"] == "stale_version"
        assert '"1"' in answer.json()["detail"]
    if status == 422:
        assert answer.json()["errors"][0]["field"] == "If-Match"
    assert (await send(api, ada, "GET", task["id"])).json()["version"] == (2 if status == 200 else 1)


async def test_every_change_heeds_if_match(api: Api, ada: Person) -> None:
    task = await api.task(ada)
    for method, path in (("PATCH", ""), ("DELETE", ""), ("POST", ":cancel"), ("POST", ":retry")):
        body = {"title": "x"} if method == "PATCH" else None
        answer = await send(api, ada, method, task["id"] + path, body, If_Match='"0"')
        assert (answer.status_code, answer.json()["code"]) == (412, "stale_version"), (method, path)
    canceled = await send(api, ada, "POST", f"{task['id']}:cancel", If_Match='"1"')
    assert canceled.status_code == 200
    assert (await send(api, ada, "DELETE", task["id"], If_Match=canceled.headers["etag"])).status_code == 204


async def test_of_many_changes_to_one_version_one_is_made(api: Api, ada: Person) -> None:
    task = await api.task(ada)
    changes = [send(api, ada, "PATCH", task["id"], {"priority": n}, If_Match='"1"') for n in range(1, 9)]
    statuses = sorted(answer.status_code for answer in await asyncio.gather(*changes))
    assert statuses == [200] + [412] * 7
    assert (await send(api, ada, "GET", task["id"])).json()["version"] == 2


@pytest.mark.parametrize(
    ("tags", "status"), [('"1"', 304), ('W/"1"', 304), ('"0", "1"', 304), ("*", 304), ('"2"', 200), ("x", 422)]
)
async def test_a_version_that_the_client_holds_is_not_sent_again(api: Api, ada: Person, tags: str, status: int) -> None:
    task = await api.task(ada)
    answer = await send(api, ada, "GET", task["id"], If_None_Match=tags)
    assert answer.status_code == status
    if status == 304:
        assert (answer.content, answer.headers["etag"]) == (b"", '"1"')
    assert (await send(api, ada, "PATCH", task["id"], {"title": "x"})).status_code == 200
    assert (await send(api, ada, "GET", task["id"], If_None_Match='"1"')).status_code == 200
