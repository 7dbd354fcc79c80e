"""Accounts of others and the record of security events: for an ADMIN, of whom one always stays."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from httpx2 import Response
from sqlalchemy import text

from api_app import PASSWORD, Api, Person, api_settings, running_api
from taskflow_core.models.users import Role
from taskflow_core.security_events import EventKind
from taskflow_core.settings import Settings

USERS = "/api/v1/admin/users"
EVENTS = "/api/v1/admin/security-events"
LOCK_ADMINS = text("SELECT 1 FROM users WHERE role = 'ADMIN' FOR UPDATE")
ADMIN_AGAIN = "UPDATE users SET role = 'ADMIN', disabled_at = NULL, token_version = 0 WHERE id = :id"


@pytest.fixture(scope="module")
async def api(module_settings: Settings) -> AsyncIterator[Api]:
    """Run an API that believes what it saw for as long as it may."""
    async with running_api(api_settings(module_settings, access_cache_s=60)) as api:
        yield api


@pytest.fixture
async def boss(api: Api) -> AsyncIterator[Person]:
    """Return the only active ADMIN."""
    boss = await api.person(unique("boss"), role=Role.ADMIN)
    yield boss
    await api.sql("UPDATE users SET role = 'USER' WHERE role = 'ADMIN'")


@pytest.fixture
async def ada(api: Api) -> Person:
    return await api.person(unique("ada"))


def unique(name: str) -> str:
    return f"{name}-{uuid4().hex[:8]}"


async def change(api: Api, boss: Person, person: Person, **fields: Any) -> Response:
    return await api.client.patch(f"{USERS}/{person.id}", json=fields, headers=boss.headers)


async def listed(api: Api, boss: Person, url: str = USERS, **query: Any) -> list[dict[str, Any]]:
    """Follow the pages of a list to their end."""
    items: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = await api.client.get(url, params=query | cursor, headers=boss.headers)
        assert page.status_code == 200, page.text
        items += page.json()["items"]
        if page.json()["next_cursor"] is None:
            return items
        cursor = {"cursor": page.json()["next_cursor"]}


async def me(api: Api, person: Person) -> int:
    return (await api.client.get("/api/v1/tasks", headers=person.headers)).status_code


async def test_accounts_are_listed_in_pages_and_found_by_address_role_and_state(api: Api, boss: Person) -> None:
    mark = uuid4().hex[:8]
    made = [await api.person(f"{mark}-{n}") for n in range(5)]
    await api.change_user(made[1].email, role=Role.OPERATOR)
    await change(api, boss, made[2], disabled=True)
    of_mark = await listed(api, boss, email=mark.upper(), limit=2)
    assert [item["email"] for item in of_mark] == [person.email for person in reversed(made)]
    assert [item["id"] for item in await listed(api, boss, email=mark, role="OPERATOR")] == [made[1].id]
    assert [item["id"] for item in await listed(api, boss, email=mark, disabled="true")] == [made[2].id]
    assert len(await listed(api, boss, email=mark, disabled="false")) == 4
    assert await listed(api, boss, email="%") == await listed(api, boss, email="_") == []
    assert "password_hash" not in str(of_mark)


async def test_one_account_is_shown_and_an_unknown_one_is_not_found(api: Api, boss: Person, ada: Person) -> None:
    shown = (await api.client.get(f"{USERS}/{ada.id}", headers=boss.headers)).json()
    assert (shown["email"], shown["role"], shown["disabled"]) == (ada.email, "USER", False)
    for answer in (
        await api.client.get(f"{USERS}/{uuid4()}", headers=boss.headers),
        await api.client.patch(f"{USERS}/{uuid4()}", json={"role": "USER"}, headers=boss.headers),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_a_new_role_ends_the_access_tokens_that_name_the_old_one(api: Api, boss: Person, ada: Person) -> None:
    assert await me(api, ada) == 200
    changed = await change(api, boss, ada, role="OPERATOR")
    assert (changed.status_code, changed.json()["role"]) == (200, "OPERATOR")
    assert await me(api, ada) == 401
    renewed = await api.client.post("/api/v1/auth/refresh", json={"refresh_token": ada.refresh})
    headers = {"Authorization": f"Bearer {renewed.json()['access_token']}"}
    assert (await api.client.post("/api/v1/queues/default:pause", headers=headers)).status_code == 200
    (event, *_) = await listed(api, boss, EVENTS, user_id=ada.id, kind="role.changed")
    assert event["data"] == {"from": "USER", "to": "OPERATOR"}
    assert event["actor_id"] == boss.id


async def test_disabling_ends_tokens_sessions_and_keys_and_enabling_brings_none_back(
    api: Api, boss: Person, ada: Person
) -> None:
    body = {"name": "ci", "scopes": ["tasks:read"]}
    key = (await api.client.post("/api/v1/api-keys", json=body, headers=ada.headers)).json()["key"]
    by_key = Person(ada.id, ada.email, key, "")
    assert [await me(api, person) for person in (ada, by_key)] == [200, 200]
    disabled = await change(api, boss, ada, disabled=True)
    assert (disabled.json()["disabled"], disabled.json()["disabled_at"] is not None) == (True, True)
    assert [await me(api, person) for person in (ada, by_key)] == [401, 401]
    assert (await api.login(ada.email)).status_code == 401
    enabled = await change(api, boss, ada, disabled=False)
    assert (enabled.json()["disabled"], enabled.json()["disabled_at"]) == (False, None)
    assert [await me(api, person) for person in (ada, by_key)] == [401, 401]
    assert (await api.client.post("/api/v1/auth/refresh", json={"refresh_token": ada.refresh})).status_code == 401
    assert (await api.login(ada.email)).status_code == 200
    kinds = [event["kind"] for event in await listed(api, boss, EVENTS, user_id=ada.id)]
    assert kinds[:4] == ["login.succeeded", "user.enabled", "login.failed", "user.disabled"]


async def test_a_change_that_changes_nothing_ends_nothing_and_is_no_event(api: Api, boss: Person, ada: Person) -> None:
    for fields in ({"role": "USER"}, {"disabled": False}, {"role": "USER", "disabled": False}):
        assert (await change(api, boss, ada, **fields)).status_code == 200
    assert await me(api, ada) == 200
    kinds = {event["kind"] for event in await listed(api, boss, EVENTS, user_id=ada.id)}
    assert kinds == {"user.registered", "login.succeeded"}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, ""),
        ({"role": None}, "role"),
        ({"role": "ROOT"}, "role"),
        ({"role": "admin"}, "role"),
        ({"disabled": "yes"}, "disabled"),
        ({"disabled": 1}, "disabled"),
        ({"email": "x@example.com"}, "email"),
        ({"password_hash": "x", "role": "USER"}, "password_hash"),
        ({"token_version": 0, "role": "USER"}, "token_version"),
        ({"id": str(uuid4()), "role": "USER"}, "id"),
    ],
)
async def test_nothing_but_role_and_state_can_be_changed(
    api: Api, boss: Person, ada: Person, fields: dict[str, Any], field: str
) -> None:
    before = await api.fetch("SELECT * FROM users WHERE id = :id", id=ada.id)
    refused = await change(api, boss, ada, **fields)
    assert refused.status_code == 422, refused.text
    assert field in [error["field"] for error in refused.json()["errors"]]
    assert await api.fetch("SELECT * FROM users WHERE id = :id", id=ada.id) == before


@pytest.mark.parametrize("more", [{"role": "ADMIN"}, {"id": str(uuid4())}, {"disabled_at": None}])
async def test_registration_takes_no_role(api: Api, more: dict[str, Any]) -> None:
    body = {"email": f"{unique('x')}@example.com", "password": PASSWORD} | more
    refused = await api.client.post("/api/v1/auth/register", json=body)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, next(iter(more)))


@pytest.mark.parametrize("fields", [{"role": "USER"}, {"role": "OPERATOR"}, {"disabled": True}])
async def test_the_last_active_admin_stays_one(api: Api, boss: Person, fields: dict[str, Any]) -> None:
    former = await api.person(unique("former"), role=Role.ADMIN)
    assert (await change(api, boss, former, disabled=True)).status_code == 200
    refused = await change(api, boss, boss, **fields)
    assert (refused.status_code, refused.json()["code"]) == (409, "last_admin")
    assert await me(api, boss) == 200
    assert (await change(api, boss, former, disabled=False)).status_code == 200
    assert (await change(api, boss, boss, **fields)).status_code == 200
    assert await me(api, boss) == 401


async def test_of_two_admins_who_demote_each_other_at_once_one_stays(api: Api, boss: Person) -> None:
    other = await api.person(unique("other"), role=Role.ADMIN)
    for fields in ({"role": "USER"}, {"disabled": True}):
        for person in (boss, other):
            await api.sql(ADMIN_AGAIN, id=person.id)
        async with api.resources.sessions() as holding:
            await holding.execute(LOCK_ADMINS)
            both = [asyncio.create_task(change(api, one, two, **fields)) for one, two in ((boss, other), (other, boss))]
            await api.until_blocked(many=2)
            await holding.commit()
        answers = await asyncio.gather(*both)
        assert sorted(answer.status_code for answer in answers) == [200, 403]
        assert len(await api.fetch("SELECT 1 FROM users WHERE role = 'ADMIN' AND disabled_at IS NULL")) == 1


@pytest.mark.parametrize("role", [Role.USER, Role.OPERATOR])
async def test_who_is_no_admin_sees_and_changes_no_account(api: Api, boss: Person, ada: Person, role: Role) -> None:
    person = await api.person(unique("eve"), role=role)
    for answer in (
        await api.client.get(USERS, headers=person.headers),
        await api.client.get(f"{USERS}/{ada.id}", headers=person.headers),
        await api.client.get(EVENTS, headers=person.headers),
        await change(api, person, person, role="ADMIN"),
        await change(api, person, boss, disabled=True),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


async def test_what_happens_to_an_account_is_on_record(api: Api, boss: Person) -> None:
    ada = await api.person(unique("ada"))
    await api.login(ada.email, "not the password")
    for token in (ada.refresh, ada.refresh):
        await api.client.post("/api/v1/auth/refresh", json={"refresh_token": token})
    await api.sql("UPDATE refresh_tokens SET used_at = now() - interval '1 hour' WHERE used_at IS NOT NULL")
    for _ in range(2):
        await api.client.post("/api/v1/auth/refresh", json={"refresh_token": ada.refresh})
    made = await api.client.post("/api/v1/api-keys", json={"name": "ci", "scopes": ["tasks:read"]}, headers=ada.headers)
    await api.client.delete(f"/api/v1/api-keys/{made.json()['id']}", headers=ada.headers)
    events = await listed(api, boss, EVENTS, user_id=ada.id, limit=2)
    assert [event["kind"] for event in reversed(events)] == [
        "user.registered",
        "login.succeeded",
        "login.failed",
        "refresh.reused",
        "key.created",
        "key.revoked",
    ], "a reuse is noted once: afterwards there is nothing left to end"
    assert all(event["address"] == "127.0.0.1" and event["request_id"] for event in events)
    for secret in (PASSWORD, ada.refresh, made.json()["key"]):
        assert secret not in str(events)


async def test_a_failed_login_of_an_unknown_address_is_on_record_without_the_address(api: Api, boss: Person) -> None:
    email = f"{unique('nobody')}@example.com"
    agent = {b"User-Agent": b"x\ty \xad\x9b31m"}
    body = {"email": email, "password": PASSWORD}
    answer = await api.client.post("/api/v1/auth/login", json=body, headers=agent)
    (event, *_) = await listed(api, boss, EVENTS, kind="login.failed")
    assert (event["user_id"], event["request_id"]) == (None, answer.headers["x-request-id"])
    assert event["user_agent"] == "x?y ??31m"
    assert email not in str(event)


async def test_who_pauses_and_resumes_a_queue_is_on_record_and_who_may_not_is_not(
    api: Api, boss: Person, ada: Person
) -> None:
    queue = f"/api/v1/queues/{unique('q')}"
    for person in (boss, ada):
        for verb in ("pause", "resume"):
            await api.client.post(f"{queue}:{verb}", headers=person.headers)
    for kind in (EventKind.QUEUE_PAUSED, EventKind.QUEUE_RESUMED):
        (event, *others) = await listed(api, boss, EVENTS, kind=kind)
        assert (event["actor_id"], event["data"]) == (boss.id, {"queue": queue.rpartition("/")[2]})
        assert ada.id not in {other["actor_id"] for other in others}


@pytest.mark.parametrize(
    ("url", "query"),
    [
        (USERS, {"cursor": "x"}),
        (USERS, {"role": "ROOT"}),
        (USERS, {"email": "\0"}),
        (USERS, {"limit": 101}),
        (USERS, {"sort": "email"}),
        (EVENTS, {"kind": "nope"}),
        (EVENTS, {"cursor": str(2**63)}),
        (EVENTS, {"cursor": "1; DROP TABLE users"}),
        (EVENTS, {"user_id": "x"}),
        (EVENTS, {"limit": 0}),
    ],
)
async def test_a_bad_filter_is_refused_by_name(api: Api, boss: Person, url: str, query: dict[str, Any]) -> None:
    refused = await api.client.get(url, params=query, headers=boss.headers)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, next(iter(query)))


async def test_every_kind_of_event_can_be_asked_for(api: Api, boss: Person) -> None:
    for kind in EventKind:
        assert {event["kind"] for event in await listed(api, boss, EVENTS, kind=kind, limit=100)} <= {kind}
