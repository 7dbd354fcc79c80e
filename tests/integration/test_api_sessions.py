"""Sessions over HTTP: listed, ended one by one or all at once, and what a new password ends."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from httpx2 import Response

from api_app import PASSWORD, Api, Person, api_settings, running_api
from taskflow_api import throttle
from taskflow_core import refresh, users
from taskflow_core.settings import Settings

URL = "/api/v1/auth"
NEW = "another horse battery"


@pytest.fixture(scope="module")
async def api(module_settings: Settings) -> AsyncIterator[Api]:
    async with running_api(api_settings(module_settings)) as api:
        yield api


@pytest.fixture
async def ada(api: Api) -> Person:
    return await api.person(f"ada-{uuid4().hex[:8]}")


async def again(api: Api, person: Person, agent: bytes = b"tests") -> Person:
    """Log in once more: another session of the same person."""
    body = {"email": person.email, "password": PASSWORD}
    tokens = (await api.client.post(f"{URL}/login", json=body, headers={b"User-Agent": agent})).json()
    return Person(person.id, person.email, tokens["access_token"], tokens["refresh_token"])


async def sessions(api: Api, person: Person) -> list[dict[str, Any]]:
    answer = await api.client.get(f"{URL}/sessions", headers=person.headers)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def refreshed(api: Api, token: str) -> Response:
    return await api.client.post(f"{URL}/refresh", json={"refresh_token": token})


async def me(api: Api, access: str) -> int:
    return (await api.client.get(f"{URL}/me", headers={"Authorization": f"Bearer {access}"})).status_code


async def change(api: Api, person: Person, old: str = PASSWORD, new: str = NEW) -> Response:
    body = {"old_password": old, "new_password": new}
    return await api.client.post(f"{URL}/password", json=body, headers=person.headers)


async def events(api: Api, person: Person) -> list[str]:
    rows = await api.fetch("SELECT kind FROM security_events WHERE user_id = :id ORDER BY id", id=person.id)
    return [row[0] for row in rows]


async def test_a_session_says_since_when_and_from_where_it_is_used_and_which_is_this_one(api: Api, ada: Person) -> None:
    phone = await again(api, ada, b"phone \x85\x9b31m " + b"x" * 300)
    await again(api, ada, b"laptop")
    first = (await sessions(api, phone))[1]
    assert (first["current"], first["address"]) == (True, "127.0.0.1")
    assert first["user_agent"].startswith("phone ??31m xx"), "what does not print is not kept"
    assert len(first["user_agent"]) == 200
    await api.client.post(f"{URL}/refresh", json={"refresh_token": phone.refresh}, headers={"User-Agent": "tablet"})
    listed = await sessions(api, ada)
    assert [(item["user_agent"], item["current"]) for item in listed] == [
        ("tablet", False),
        ("laptop", False),
        (listed[2]["user_agent"], True),
    ]
    assert listed[0]["id"] == first["id"]
    assert listed[0]["created_at"] == first["created_at"] < listed[0]["last_used_at"] < listed[0]["expires_at"]
    assert phone.refresh not in str(listed)


async def test_what_has_ended_or_expired_is_not_listed(api: Api, ada: Person) -> None:
    ended, idle = await again(api, ada), await again(api, ada)
    await api.client.post(f"{URL}/logout", json={"refresh_token": ended.refresh})
    (idle_id,) = [item["id"] for item in await sessions(api, idle) if item["current"]]
    await api.sql("UPDATE refresh_tokens SET expires_at = now() WHERE id = :id", id=idle_id)
    assert [item["current"] for item in await sessions(api, ada)] == [True]


async def test_a_session_can_be_ended_and_the_others_go_on(api: Api, ada: Person) -> None:
    other = await again(api, ada)
    (session_id,) = [item["id"] for item in await sessions(api, other) if item["current"]]
    gone = await api.client.delete(f"{URL}/sessions/{session_id}", headers=ada.headers)
    assert gone.status_code == 204
    assert (await refreshed(api, other.refresh)).status_code == 401
    assert (await refreshed(api, ada.refresh)).status_code == 200
    repeated = await api.client.delete(f"{URL}/sessions/{session_id}", headers=ada.headers)
    assert (repeated.status_code, repeated.json()["code"]) == (404, "not_found")
    assert (await events(api, ada))[-1] == "session.revoked"


async def test_the_session_of_another_is_not_found_and_goes_on(api: Api, ada: Person) -> None:
    eve = await api.person("eve")
    (session,) = await sessions(api, ada)
    for session_id in (session["id"], uuid4()):
        answer = await api.client.delete(f"{URL}/sessions/{session_id}", headers=eve.headers)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert (await refreshed(api, ada.refresh)).status_code == 200


async def test_logout_all_ends_every_session_and_access_token_of_this_user_alone(api: Api, ada: Person) -> None:
    bob = await api.person(f"bob-{uuid4().hex[:8]}")
    other = await again(api, ada)
    assert [await me(api, person.access) for person in (ada, other, bob)] == [200] * 3
    assert (await api.client.post(f"{URL}/logout-all", headers=ada.headers)).status_code == 204
    assert [await me(api, person.access) for person in (ada, other, bob)] == [401, 401, 200]
    assert [(await refreshed(api, person.refresh)).status_code for person in (ada, other, bob)] == [401, 401, 200]
    assert await me(api, (await again(api, ada)).access) == 200
    assert "sessions.revoked" in await events(api, ada)


async def test_a_new_password_ends_all_sessions_and_starts_one(api: Api, ada: Person) -> None:
    other = await again(api, ada)
    changed = await change(api, ada)
    assert changed.status_code == 200, changed.text
    tokens = changed.json()
    assert [await me(api, token) for token in (ada.access, other.access, tokens["access_token"])] == [401, 401, 200]
    assert (await refreshed(api, other.refresh)).status_code == 401
    assert (await refreshed(api, tokens["refresh_token"])).status_code == 200
    assert (await api.login(ada.email)).status_code == 401
    assert (await api.login(ada.email, NEW)).status_code == 200
    assert "password.changed" in await events(api, ada)


async def test_a_wrong_old_password_is_refused_by_name_and_counted_like_a_failed_login(api: Api, ada: Person) -> None:
    for _ in range(throttle.PER_ACCOUNT):
        refused = await change(api, ada, old="not the password")
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "old_password")
    assert (await change(api, ada)).status_code == 429
    assert (await refreshed(api, ada.refresh)).status_code == 200
    assert (await events(api, ada)).count("login.failed") == throttle.PER_ACCOUNT


async def test_a_new_password_that_is_too_short_is_refused(api: Api, ada: Person) -> None:
    refused = await change(api, ada, new="short")
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "new_password")
    assert "short" not in refused.text.replace("shorter", "")


async def test_of_two_new_passwords_at_once_one_is_kept(api: Api, ada: Person) -> None:
    answers = await asyncio.gather(*(change(api, ada, new=f"{NEW} {n}") for n in range(2)))
    assert sorted(answer.status_code for answer in answers) in ([200, 401], [200, 409], [200, 422])
    (kept,) = [n for n, answer in enumerate(answers) if answer.status_code == 200]
    assert (await api.login(ada.email, f"{NEW} {kept}")).status_code == 200
    assert (await api.login(ada.email, f"{NEW} {1 - kept}")).status_code == 401


async def test_a_login_that_was_checked_before_the_password_changed_comes_too_late(api: Api, ada: Person) -> None:
    async with api.resources.sessions() as session:
        seen = await users.find(session, ada.email)
        await session.commit()
        assert seen is not None
        assert (await change(api, ada)).status_code == 200
        assert await users.log_in(session, seen, new_hash="a better hash of the old password") is None
    assert (await api.login(ada.email, NEW)).status_code == 200


async def test_a_refresh_that_waits_for_logout_all_is_refused(api: Api, ada: Person) -> None:
    async with api.resources.sessions() as ending:
        await users.end_tokens(ending, UUID(ada.id))
        await refresh.revoke_all(ending, UUID(ada.id))
        waiting = asyncio.create_task(refreshed(api, ada.refresh))
        await api.until_blocked()
        await ending.commit()
    assert (await waiting).status_code == 401


async def test_the_oldest_of_very_many_sessions_end(api: Api, ada: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refresh, "MAX_SESSIONS", 3)
    others = [await again(api, ada) for _ in range(4)]
    assert len(await sessions(api, ada)) == 3
    statuses = [(await refreshed(api, person.refresh)).status_code for person in (ada, *others)]
    assert statuses == [401, 401, 200, 200, 200]
