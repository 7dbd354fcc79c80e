"""`Prefer: wait` on POST /tasks and GET /tasks/{id}."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from starlette.requests import Request

from api_app import Api, Person, api_settings, running_api
from taskflow_api.waiting import preferred_wait_s
from taskflow_core.settings import Settings
from waiting import eventually_async

LETTER = {"type": "LETTER", "payload": {"to": ["ada"]}}
FINISH = """
WITH t AS (
  UPDATE tasks SET status = 'COMPLETED', finished_at = now(), row_version = row_version + 1, result = '{"sent": 1}'
  WHERE id IN (SELECT id FROM tasks WHERE finished_at IS NULL) RETURNING id, owner_id
) INSERT INTO task_events (task_id, owner_id, kind, attempt) SELECT id, owner_id, 'task.completed', 1 FROM t
"""


@pytest.fixture(scope="module")
async def api(module_settings: Settings) -> AsyncIterator[Api]:
    async with running_api(api_settings(module_settings, max_streams=2, database_pool_size=1)) as api:
        yield api


@pytest.fixture(scope="module")
async def ada(api: Api) -> Person:
    return await api.person()


async def waits(api: Api, count: int) -> None:
    async def there() -> bool:
        return api.resources.feed.open_waits == count

    await eventually_async(there)


async def test_a_create_that_waits_answers_the_finished_task_and_holds_no_connection(api: Api, ada: Person) -> None:
    headers = ada.headers | {"Prefer": "wait=30"}
    creating = asyncio.create_task(api.client.post("/api/v1/tasks", json=LETTER, headers=headers))
    await waits(api, 1)
    await api.sql(FINISH)  # over the only connection of the pool
    made = await creating
    assert (made.status_code, made.json()["status"], made.json()["result"]) == (201, "COMPLETED", {"sent": 1})
    assert made.headers["Preference-Applied"] == "wait=30"
    assert made.headers["ETag"] == '"2"'


async def test_a_wait_that_is_over_answers_the_task_as_it_stands(api: Api, ada: Person) -> None:
    made = await api.client.post("/api/v1/tasks", json=LETTER, headers=ada.headers | {"Prefer": "wait=1"})
    assert (made.status_code, made.json()["status"]) == (201, "PENDING")
    path, headers = made.headers["Location"], ada.headers | {"Prefer": "respond-async, wait=30"}
    looking = asyncio.create_task(api.client.get(path, headers=headers))
    await waits(api, 1)
    await api.sql(FINISH)
    seen = await looking
    assert (seen.status_code, seen.json()["status"]) == (200, "COMPLETED")
    again = await api.client.get(path, headers=headers)
    assert (again.json()["status"], again.headers["Preference-Applied"]) == ("COMPLETED", "wait=30")


async def test_too_many_waits_are_answered_at_once_and_say_so(api: Api, ada: Person) -> None:
    headers = ada.headers | {"Prefer": "wait=30"}
    creating = [asyncio.create_task(api.client.post("/api/v1/tasks", json=LETTER, headers=headers)) for _ in range(2)]
    await waits(api, 2)
    made = await api.client.post("/api/v1/tasks", json=LETTER, headers=headers)
    assert (made.status_code, made.json()["status"], made.headers.get("Preference-Applied")) == (201, "PENDING", None)
    await api.sql(FINISH)
    assert [(await one).json()["status"] for one in creating] == ["COMPLETED", "COMPLETED"]


async def test_a_task_that_is_deleted_ends_the_wait(api: Api, ada: Person) -> None:
    task = await api.task(ada)
    headers = ada.headers | {"Prefer": "wait=30"}
    looking = asyncio.create_task(api.client.get(f"/api/v1/tasks/{task['id']}", headers=headers))
    await waits(api, 1)
    async with api.resources.sessions() as session:
        await session.execute(text("DELETE FROM tasks WHERE id = :id"), {"id": task["id"]})
        await session.commit()
    assert (await looking).status_code == 404


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 0),
        ("wait=5", 5),
        ("Wait = 7", 7),
        ('wait="9"', 9),
        ("respond-async; x=1, wait=11; y", 11),
        ("wait=31", 30),
        ("wait=999999999", 30),
        ("wait=0", 0),
        ("wait=-1", 0),
        ("wait=1.5", 0),
        ("wait", 0),
        ("await=3", 0),
        ("wait=99999999999999", 0),
    ],
)
def test_a_preference_is_read_within_its_bounds_and_else_ignored(header: str | None, seconds: int) -> None:
    headers = [] if header is None else [(b"prefer", header.encode())]
    assert preferred_wait_s(Request({"type": "http", "headers": headers})) == seconds
