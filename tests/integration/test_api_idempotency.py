"""Idempotency-Key over HTTP: a request that is sent twice does its work once."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from httpx2 import Response

from api_app import Api, Person, api_settings, running_api
from taskflow_core import idempotency
from taskflow_core.actors import Actor
from taskflow_core.database import plain_url
from taskflow_core.models.tasks import IdempotencyKey
from taskflow_core.models.users import Role
from taskflow_core.settings import Settings
from waiting import eventually_async

LETTER: dict[str, Any] = {"type": "LETTER", "payload": {"to": ["bob"], "extra": {"b": 1, "a": [2.5, None]}}}
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Api]:
    async with running_api(api_settings(settings)) as api:
        yield api


@pytest.fixture
async def ada(api: Api) -> Person:
    return await api.person("ada")


async def send(api: Api, person: Person, key: str | bytes, **changes: Any) -> Response:
    headers: list[tuple[str | bytes, str | bytes]] = [(b"Idempotency-Key", key), *person.headers.items()]
    return await api.client.post("/api/v1/tasks", json=LETTER | changes, headers=headers)  # type: ignore[arg-type]


async def test_the_same_request_again_gets_the_same_answer_and_makes_no_second_task(api: Api, ada: Person) -> None:
    first = await send(api, ada, "k-1")
    await api.client.post(f"/api/v1/tasks/{first.json()['id']}:cancel", headers=ada.headers)
    again = await send(api, ada, "k-1")
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    for name in ("location", "etag", "content-type"):
        assert again.headers[name] == first.headers[name]
    assert (await api.rows())["tasks"] == 1
    assert await api.resources.redis.llen("rq:queue:default") == 1


async def test_the_order_and_spacing_of_a_bodys_members_do_not_matter(api: Api, ada: Person) -> None:
    first = await send(api, ada, "k-1")
    body = json.dumps({"payload": {"extra": {"a": [2.5, None], "b": 1}, "to": ["bob"]}, "type": "LETTER"}, indent=3)
    headers = ada.headers | {"Idempotency-Key": "k-1", "Content-Type": "application/json"}
    again = await api.client.post("/api/v1/tasks", content=body, headers=headers)
    assert again.json() == first.json()


@pytest.mark.parametrize("changes", [{"payload": {"to": ["eve"]}}, {"priority": 1}, {"title": "other"}])
async def test_another_request_under_the_same_key_is_refused(api: Api, ada: Person, changes: dict[str, Any]) -> None:
    await send(api, ada, "k-1")
    refused = await send(api, ada, "k-1", **changes)
    assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_mismatch")
    assert refused.json()["errors"][0]["field"] == "Idempotency-Key"
    assert (await api.rows())["tasks"] == 1


async def test_a_key_belongs_to_its_user(api: Api, ada: Person) -> None:
    bob = await api.person("bob")
    mine, theirs = await send(api, ada, "k-1"), await send(api, bob, "k-1", title="other")
    assert (mine.status_code, theirs.status_code) == (201, 201)
    assert mine.json()["id"] != theirs.json()["id"]


async def test_twenty_requests_at_once_make_one_task_and_get_one_answer(api: Api, ada: Person) -> None:
    answers = await asyncio.gather(*(send(api, ada, "k-1") for _ in range(20)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    made = [answer for answer in answers if answer.status_code == 201]
    assert len({answer.json()["id"] for answer in made}) == 1
    assert len([answer for answer in made if "idempotent-replayed" not in answer.headers]) == 1
    assert (await api.rows())["tasks"] == 1


async def test_a_request_beside_one_that_hangs_is_told_to_come_back(api: Api, ada: Person, settings: Settings) -> None:
    actor = Actor(UUID(ada.id), Role.USER)
    async with api.resources.sessions() as hanging:
        await idempotency.claim(hanging, "k-1", actor=actor, request_hash=b"x" * 32)
        refused = await send(api, ada, "k-1")
    assert (refused.status_code, refused.json()["code"]) == (409, "idempotency_conflict")
    assert refused.headers["retry-after"] == "1"
    assert (await send(api, ada, "k-1")).status_code == 201


async def test_a_request_whose_process_was_killed_leaves_its_key_to_the_next(
    api: Api, ada: Person, settings: Settings
) -> None:
    url = plain_url(settings.database_url)
    with psycopg.connect(url, autocommit=True) as admin, closing(psycopg.connect(url)) as killed:
        killed.execute(
            "INSERT INTO idempotency_keys (owner_id, key, request_hash, expires_at) VALUES (%s, 'k-1', '', now())",
            [ada.id],
        )
        waiting = asyncio.create_task(send(api, ada, "k-1"))

        async def is_waiting() -> bool:
            return admin.execute(WAITING).fetchone() == (1,)

        await eventually_async(is_waiting)
        admin.execute("SELECT pg_terminate_backend(%s)", [killed.info.backend_pid])
        assert (await waiting).status_code == 201
    assert (await api.rows())["tasks"] == 1


async def test_a_refused_request_leaves_its_key_free(api: Api, ada: Person) -> None:
    assert (await send(api, ada, "k-1", payload={})).status_code == 422
    assert (await send(api, ada, "k-1", type="NOPE")).status_code == 422
    await send(api, ada, "k-2", dedup_key="once")
    assert (await send(api, ada, "k-1", dedup_key="once")).status_code == 409
    assert (await send(api, ada, "k-1")).status_code == 201


async def test_a_duplicate_by_key_is_replayed_rather_than_refused_for_its_dedup_key(api: Api, ada: Person) -> None:
    first, again = [await send(api, ada, "k-1", dedup_key="once") for _ in range(2)]
    assert (again.status_code, again.json()) == (201, first.json())


async def test_a_key_is_free_again_after_a_day(api: Api, ada: Person) -> None:
    first = await send(api, ada, "k-1")
    async with api.resources.sessions() as session:
        row = await session.get(IdempotencyKey, (UUID(ada.id), "k-1"))
        assert row is not None
        assert row.expires_at - row.created_at >= timedelta(hours=24)
        assert str(row.task_id) == first.json()["id"]
    await api.sql("UPDATE idempotency_keys SET expires_at = now()")
    other = await send(api, ada, "k-1", title="other")
    assert (other.status_code, other.json()["id"] != first.json()["id"]) == (201, True)
    assert (await send(api, ada, "k-1", title="other")).json() == other.json()


@pytest.mark.parametrize("key", ["", " ", "a b", "k" * 256, "ä", b"\x7f", b"a\tb"])
async def test_a_key_that_is_not_visible_ascii_is_refused_by_name(api: Api, ada: Person, key: str | bytes) -> None:
    key = key.encode("latin-1") if isinstance(key, str) else key
    refused = await send(api, ada, key)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid")
    assert refused.json()["errors"][0]["field"] == "Idempotency-Key"
    assert (await api.rows())["tasks"] == 0


async def test_two_keys_on_one_request_are_refused(api: Api, ada: Person) -> None:
    headers = [*ada.headers.items(), ("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    refused = await api.client.post("/api/v1/tasks", json=LETTER, headers=headers)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "Idempotency-Key")


async def test_the_longest_key_works(api: Api, ada: Person) -> None:
    first, again = [await send(api, ada, "~" * 255) for _ in range(2)]
    assert first.json() == again.json()


async def test_the_document_of_the_api_names_the_header(api: Api) -> None:
    operation = (await api.client.get("/openapi.json")).json()["paths"]["/api/v1/tasks"]["post"]
    assert "Idempotency-Key" in [parameter["name"] for parameter in operation["parameters"]]
