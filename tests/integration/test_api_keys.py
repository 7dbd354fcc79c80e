"""API keys over HTTP: shown once, bounded in time and scope, used like a token, gone when revoked."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from httpx2 import Response

from api_app import Api, Person, api_settings, running_api
from taskflow_core import api_keys
from taskflow_core.models.users import Role
from taskflow_core.scopes import SCOPES
from taskflow_core.settings import Settings
from waiting import eventually_async

URL = "/api/v1/api-keys"
TASKS = "/api/v1/tasks"
LETTER = {"type": "LETTER", "payload": {"to": ["ada"]}}


@pytest.fixture(scope="module")
async def api(module_settings: Settings) -> AsyncIterator[Api]:
    """Run an API that believes what it saw for as long as it may."""
    async with running_api(api_settings(module_settings, access_cache_s=60)) as api:
        yield api


@pytest.fixture
async def ada(api: Api) -> Person:
    return await api.person(f"ada-{uuid4().hex[:8]}")


async def create(api: Api, person: Person, *scopes: str, **fields: Any) -> Response:
    body = {"name": "ci", "scopes": scopes or ["tasks:read"]} | fields
    return await api.client.post(URL, json=body, headers=person.headers)


async def key_of(api: Api, person: Person, *scopes: str, **fields: Any) -> dict[str, Any]:
    made = await create(api, person, *scopes, **fields)
    assert made.status_code == 201, made.text
    key: dict[str, Any] = made.json()
    return key


async def use(api: Api, key: dict[str, Any], method: str = "GET", url: str = TASKS, **more: Any) -> Response:
    return await api.client.request(method, url, headers={"Authorization": f"Bearer {key['key']}"}, **more)


async def test_a_key_is_shown_once_and_only_its_hash_is_stored(api: Api, ada: Person) -> None:
    key = await key_of(api, ada, "tasks:read", "tasks:write", name="nightly import")
    assert api_keys.FORM.fullmatch(key["key"])
    assert key["key"].startswith(key["hint"] + "_")
    life = datetime.fromisoformat(key["expires_at"]) - datetime.now(UTC)
    assert abs(life - api_keys.DEFAULT_LIFE) < timedelta(hours=1)
    listed = (await api.client.get(URL, headers=ada.headers)).json()["items"]
    assert listed == [{name: value for name, value in key.items() if name != "key"}]
    query = "SELECT to_jsonb(k)::text, key_hash FROM api_keys k WHERE owner_id = :id"
    (row,) = await api.fetch(query, id=ada.id)
    assert key["key"].removeprefix(key["hint"]) not in row[0]
    assert row[1] == api_keys.digest(key["key"])


async def test_a_key_acts_for_its_owner_within_its_scopes(api: Api, ada: Person) -> None:
    task = await api.task(ada)
    other = await api.task(await api.person("someone"))
    key = await key_of(api, ada, "tasks:read")
    listed = (await use(api, key)).json()["items"]
    assert [item["id"] for item in listed] == [task["id"]]
    assert (await use(api, key, url=f"{TASKS}/{other['id']}")).status_code == 404
    refused = await use(api, key, "POST", json=LETTER)
    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")
    assert 'scope="tasks:write"' in refused.headers["www-authenticate"]
    writer = await key_of(api, ada, "tasks:write")
    made = await use(api, writer, "POST", json=LETTER)
    assert (made.status_code, made.json()["owner_id"]) == (201, ada.id)
    assert (await use(api, writer)).status_code == 403, "who may write may not read for that"


@pytest.mark.parametrize(
    ("method", "url"),
    [
        ("GET", "/api/v1/auth/me"),
        ("POST", "/api/v1/auth/password"),
        ("POST", "/api/v1/auth/logout-all"),
        ("GET", URL),
        ("POST", URL),
        ("GET", "/api/v1/admin/users"),
    ],
)
async def test_no_key_manages_accounts_or_keys_whatever_its_scopes_and_owner(api: Api, method: str, url: str) -> None:
    boss = await api.person(f"boss-{uuid4().hex[:8]}", role=Role.ADMIN)
    key = await key_of(api, boss, *SCOPES)
    refused = await use(api, key, method, url, json={})
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"scopes": []}, "scopes"),
        ({"scopes": ["tasks:admin"]}, "scopes.0"),
        ({"scopes": ["tasks:read", "tasks:read"]}, "scopes"),
        ({"scopes": ["*"]}, "scopes.0"),
        ({"scopes": "tasks:read"}, "scopes"),
        ({"name": ""}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": (datetime.now(UTC) + timedelta(days=400)).isoformat()}, "expires_at"),
        ({"expires_at": "2030-01-01"}, "expires_at"),
        ({"owner_id": str(uuid4())}, "owner_id"),
        ({"role": "ADMIN"}, "role"),
        ({"key_hash": "x"}, "key_hash"),
    ],
)
async def test_a_bad_request_for_a_key_is_refused_by_field(
    api: Api, ada: Person, fields: dict[str, Any], field: str
) -> None:
    refused = await create(api, ada, **fields)
    assert refused.status_code == 422, refused.text
    assert field in [error["field"] for error in refused.json()["errors"]]
    assert (await api.client.get(URL, headers=ada.headers)).json()["items"] == []


async def test_a_revoked_key_is_refused_at_once_where_it_was_revoked(api: Api, ada: Person) -> None:
    key = await key_of(api, ada)
    assert (await use(api, key)).status_code == 200
    assert (await api.client.delete(f"{URL}/{key['id']}", headers=ada.headers)).status_code == 204
    refused = await use(api, key)
    assert (refused.status_code, refused.json()["code"]) == (401, "invalid_token")
    assert (await api.client.get(URL, headers=ada.headers)).json()["items"] == []
    assert (await api.client.delete(f"{URL}/{key['id']}", headers=ada.headers)).status_code == 404


async def test_the_key_of_another_is_not_found_and_works_on(api: Api, ada: Person) -> None:
    key = await key_of(api, ada)
    eve = await api.person("eve")
    assert (await api.client.delete(f"{URL}/{key['id']}", headers=eve.headers)).status_code == 404
    assert (await api.client.get(URL, headers=eve.headers)).json()["items"] == []
    assert (await use(api, key)).status_code == 200


@pytest.mark.parametrize(
    "token",
    [
        "tf_",
        "tf_000000000000_" + "x" * 43,
        "tf_" + "x" * 5000,
        "tf_0' OR '1'='1",
        "tfr_000000000000_" + "x" * 43,
    ],
)
async def test_a_key_that_was_never_issued_is_refused(api: Api, token: str) -> None:
    refused = await use(api, {"key": token})
    assert (refused.status_code, refused.json()["code"]) == (401, "invalid_token")


async def test_an_expired_key_is_refused_even_while_it_is_remembered(api: Api, ada: Person) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=2)
    key = await key_of(api, ada, expires_at=soon.isoformat())

    async def refused() -> bool:
        return (await use(api, key)).status_code == 401

    await eventually_async(refused)
    assert datetime.now(UTC) >= soon


async def test_what_was_seen_of_a_users_key_is_believed_for_a_while_and_no_longer(
    api: Api, ada: Person, module_settings: Settings
) -> None:
    key = await key_of(api, ada)
    assert (await use(api, key)).status_code == 200
    await api.sql("UPDATE api_keys SET revoked_at = now() WHERE id = :id", id=key["id"])
    assert (await use(api, key)).status_code == 200
    async with running_api(api_settings(module_settings, access_cache_s=0)) as doubtful:
        assert (await use(doubtful, key)).status_code == 401


async def test_the_key_of_an_operator_ends_at_once_with_the_role_or_the_key(api: Api) -> None:
    operator = await api.person(f"operator-{uuid4().hex[:8]}", role=Role.OPERATOR)
    key = await key_of(api, operator, "queues:write")
    pause = "/api/v1/queues/default:pause"
    assert (await use(api, key, "POST", pause)).status_code == 200
    await api.change_user(operator.email, role=Role.USER)
    assert (await use(api, key, "POST", pause)).status_code == 403
    await api.change_user(operator.email, role=Role.OPERATOR)


async def test_a_use_is_noted_at_most_once_a_minute(module_settings: Settings) -> None:
    async with running_api(api_settings(module_settings, access_cache_s=0)) as api:
        ada = await api.person(f"ada-{uuid4().hex[:8]}")
        key = await key_of(api, ada)

        async def last_used() -> datetime | None:
            ((moment,),) = await api.fetch("SELECT last_used_at FROM api_keys WHERE id = :id", id=key["id"])
            assert moment is None or isinstance(moment, datetime)
            return moment

        assert await last_used() is None
        await use(api, key)
        first = await last_used()
        await use(api, key)
        assert first is not None
        assert await last_used() == first
        await api.sql("UPDATE api_keys SET last_used_at = now() - interval '61 s' WHERE id = :id", id=key["id"])
        await use(api, key)
        assert (await last_used() or first) > first


async def test_an_owner_has_a_bounded_number_of_keys_even_when_asking_at_once(
    api: Api, ada: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_keys, "MAX_PER_OWNER", 3)
    answers = await asyncio.gather(*(create(api, ada) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [201] * 3 + [429] * 3
    assert len((await api.client.get(URL, headers=ada.headers)).json()["items"]) == 3


async def test_keys_go_on_when_all_sessions_end(api: Api, ada: Person) -> None:
    key = await key_of(api, ada)
    await api.client.post("/api/v1/auth/logout-all", headers=ada.headers)
    assert (await use(api, key)).status_code == 200
