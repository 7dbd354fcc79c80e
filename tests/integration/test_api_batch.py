"""POST /tasks:batch: many tasks at once, each made or refused for itself."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from httpx2 import Response

from api_app import Api, Person, api_settings, running_api
from taskflow_core.lanes import CROWD
from taskflow_core.settings import Settings

LETTER: dict[str, Any] = {"type": "LETTER", "payload": {"to": ["bob"]}}


@pytest.fixture(scope="module")
async def api(module_settings: Settings) -> AsyncIterator[Api]:
    async with running_api(api_settings(module_settings, max_pending_tasks=1100, max_body_bytes=10_000)) as api:
        yield api


@pytest.fixture
async def ada(api: Api, request: pytest.FixtureRequest) -> Person:
    return await api.person(f"ada{abs(hash(request.node.name))}")


async def send(api: Api, person: Person, items: list[Any], **headers: str) -> Response:
    return await api.client.post("/api/v1/tasks:batch", json={"items": items}, headers=person.headers | headers)


async def listed(api: Api, person: Person) -> int:
    answer = await api.client.get("/api/v1/tasks", params={"page": 1}, headers=person.headers)
    total: int = answer.json()["total"]
    return total


async def test_every_item_has_its_result_in_its_place(api: Api, ada: Person) -> None:
    first = await api.task(ada, dedup_key="taken")
    items = [
        LETTER | {"title": "one", "tags": ["a", "b"]},
        LETTER | {"dedup_key": "taken"},
        {"type": "NOPE", "payload": {}},
        LETTER | {"payload": {"to": 3}},
        LETTER | {"delay_s": 3600, "dedup_key": "new"},
        LETTER | {"dedup_key": "new"},
        "no object",
        LETTER | {"payload": {"to": ["x" * 10_000]}},
    ]
    answer = await send(api, ada, items)
    assert answer.status_code == 200
    found = answer.json()
    assert [item["status"] for item in found["items"]] == [201, 409, 422, 422, 201, 409, 422, 413]
    assert found["created"] == 2
    assert found["items"][1]["problem"]["task_id"] == first["id"]
    assert found["items"][2]["problem"]["code"] == "unknown_type"
    assert found["items"][3]["problem"]["errors"][0]["field"] == "payload.to"
    assert found["items"][4]["task"]["state"] == "SCHEDULED"
    assert found["items"][5]["problem"]["task_id"] == found["items"][4]["task"]["id"]
    made = await api.client.get(f"/api/v1/tasks/{found['items'][0]['task']['id']}", headers=ada.headers)
    assert (made.json()["title"], made.json()["tags"], made.json()["version"]) == ("one", ["a", "b"], 1)


async def test_a_thousand_tasks_are_stored_and_delivered_and_leave_the_crowd_behind(api: Api, ada: Person) -> None:
    before = await api.resources.redis.llen("rq:queue:default"), await api.resources.redis.llen("rq:queue:default:low")
    answer = await send(api, ada, [LETTER] * 1000)
    assert answer.json()["created"] == 1000
    after = await api.resources.redis.llen("rq:queue:default"), await api.resources.redis.llen("rq:queue:default:low")
    assert (after[0] - before[0], after[1] - before[1]) == (CROWD, 1000 - CROWD)
    assert await listed(api, ada) == 1000


async def test_items_over_the_quota_are_refused_and_the_others_made(api: Api, ada: Person) -> None:
    await send(api, ada, [LETTER] * 1000)
    answer = await send(api, ada, [LETTER] * 150)
    statuses = [item["status"] for item in answer.json()["items"]]
    assert statuses == [201] * 100 + [429] * 50
    assert (await send(api, ada, [LETTER])).json()["items"][0]["problem"]["code"] == "too_many"
    assert await listed(api, ada) == 1100


async def test_the_same_batch_under_its_key_gets_the_same_answer(api: Api, ada: Person) -> None:
    key = {"Idempotency-Key": "batch-1"}
    first, again = [await send(api, ada, [LETTER, {"type": "NOPE"}], **key) for _ in range(2)]
    assert (again.status_code, again.json()) == (200, first.json())
    assert again.headers["idempotent-replayed"] == "true"
    assert (await send(api, ada, [LETTER], **key)).json()["code"] == "idempotency_mismatch"
    assert await listed(api, ada) == 1


@pytest.mark.parametrize("items", [[], [LETTER] * 1001, {}], ids=["none", "1,001", "no list"])
async def test_a_batch_of_a_wrong_size_is_refused_by_name(api: Api, ada: Person, items: Any) -> None:
    refused = await send(api, ada, items)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "items")


async def test_a_batch_may_be_larger_than_a_single_request(api: Api, ada: Person) -> None:
    assert (await send(api, ada, [LETTER | {"title": "x" * 200}] * 200)).json()["created"] == 200
