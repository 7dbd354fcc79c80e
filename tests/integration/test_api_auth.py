"""Accounts and tokens over HTTP: register, login, refresh in families, logout, roles."""

import asyncio
from collections.abc import AsyncIterator

import bcrypt
import pytest
from argon2 import PasswordHasher
from sqlalchemy import select
from sqlmodel import col

from api_app import PASSWORD, Api, Person, api_settings, running_api
from taskflow_api import throttle
from taskflow_core import passwords
from taskflow_core.models.users import RefreshToken, Role, User
from taskflow_core.settings import Settings

REDIS_AWAY = "redis://127.0.0.1:1/0"


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Api]:
    async with running_api(api_settings(settings)) as api:
        yield api


@pytest.fixture
async def ada(api: Api) -> Person:
    return await api.person("ada")


async def refreshed(api: Api, token: str) -> tuple[int, dict[str, str]]:
    answer = await api.client.post("/api/v1/auth/refresh", json={"refresh_token": token})
    body: dict[str, str] = answer.json()
    return answer.status_code, body


async def tokens_in_database(api: Api) -> list[RefreshToken]:
    async with api.resources.sessions() as session:
        return list((await session.execute(select(RefreshToken).order_by(col(RefreshToken.id)))).scalars())


async def user_in_database(api: Api, email: str) -> User:
    async with api.resources.sessions() as session:
        return (await session.execute(select(User).where(col(User.email) == email))).scalar_one()


async def test_a_new_account_is_a_user_that_can_log_in_and_see_itself(api: Api) -> None:
    made = await api.client.post("/api/v1/auth/register", json={"email": " Ada@Example.COM", "password": PASSWORD})
    assert made.status_code == 422, "blanks around an address are a mistake"
    made = await api.client.post("/api/v1/auth/register", json={"email": "Ada@Example.COM", "password": PASSWORD})
    assert made.status_code == 201
    assert made.json()["email"] == "ada@example.com"
    assert made.json()["role"] == "USER"
    assert PASSWORD not in made.text
    login = await api.login("ADA@example.com")
    assert login.status_code == 200
    assert login.headers["cache-control"] == "no-store"
    tokens = login.json()
    assert set(tokens) == {"access_token", "token_type", "expires_in", "refresh_token"}
    assert (tokens["token_type"], tokens["expires_in"]) == ("Bearer", 900)
    me = await api.client.get("/api/v1/auth/me", headers={"Authorization": f"Bearer {tokens['access_token']}"})
    assert me.status_code == 200
    assert me.json()["id"] == made.json()["id"]
    assert me.json()["last_login_at"].endswith("Z")


async def test_an_address_registers_once_whatever_its_case_and_however_many_try(api: Api) -> None:
    bodies = [{"email": email, "password": PASSWORD} for email in ("bob@example.com", "BOB@example.com") * 5]
    answers = await asyncio.gather(*(api.client.post("/api/v1/auth/register", json=body) for body in bodies))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 9
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"already_registered"}
    assert (await api.rows())["users"] == 1


async def test_wrong_password_unknown_and_disabled_account_answer_the_same(api: Api, ada: Person) -> None:
    await api.person("eve")
    await api.sql("UPDATE users SET disabled_at = now() WHERE email = 'eve@example.com'")
    answers = [
        await api.login(ada.email, "not the password"),
        await api.login("nobody@example.com", "not the password"),
        await api.login("eve@example.com"),
    ]
    assert [answer.status_code for answer in answers] == [401] * 3
    assert all(answer.headers["www-authenticate"].startswith("Bearer") for answer in answers)
    assert len({answer.json()["detail"] for answer in answers}) == 1


@pytest.mark.parametrize(
    "imported",
    [
        pytest.param(bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode(), id="plain bcrypt"),
        pytest.param(PasswordHasher(time_cost=1, memory_cost=1024).hash(PASSWORD), id="argon2"),
    ],
)
async def test_an_imported_hash_is_accepted_and_replaced_at_login(api: Api, ada: Person, imported: str) -> None:
    await api.change_user(ada.email, password_hash=imported)
    assert (await api.login(ada.email)).status_code == 200
    upgraded = (await user_in_database(api, ada.email)).password_hash
    assert upgraded.startswith("$bcrypt-sha256$")
    assert (await api.login(ada.email)).status_code == 200
    assert (await user_in_database(api, ada.email)).password_hash == upgraded


async def test_a_refresh_gives_the_next_token_and_only_hashes_are_stored(api: Api, ada: Person) -> None:
    status, second = await refreshed(api, ada.refresh)
    assert status == 200
    assert second["refresh_token"] != ada.refresh
    me = await api.client.get("/api/v1/auth/me", headers={"Authorization": f"Bearer {second['access_token']}"})
    assert me.status_code == 200
    root, child = await tokens_in_database(api)
    assert child.parent_id == root.id
    assert child.family_id == root.family_id == root.id
    assert all(len(row.token_hash) == 32 for row in (root, child))
    assert child.family_expires_at == root.family_expires_at


async def test_twenty_refreshes_at_once_leave_one_living_child_that_all_were_given(api: Api, ada: Person) -> None:
    answers = await asyncio.gather(*(refreshed(api, ada.refresh) for _ in range(20)))
    assert [status for status, _ in answers] == [200] * 20
    assert len({body["refresh_token"] for _, body in answers}) == 1
    rows = await tokens_in_database(api)
    assert len(rows) == 2
    assert len([row for row in rows if row.used_at is None and row.revoked_at is None]) == 1


async def test_a_token_used_after_its_child_was_used_ends_the_family_even_within_the_grace(
    api: Api, ada: Person
) -> None:
    _, second = await refreshed(api, ada.refresh)
    _, third = await refreshed(api, second["refresh_token"])
    status, body = await refreshed(api, ada.refresh)
    assert (status, body["code"]) == (401, "invalid_token")
    assert (await refreshed(api, third["refresh_token"]))[0] == 401
    assert all(row.revoked_at is not None for row in await tokens_in_database(api))


async def test_a_token_used_again_after_the_grace_ends_the_family_and_the_revocation_is_committed(
    api: Api, ada: Person
) -> None:
    _, second = await refreshed(api, ada.refresh)
    await api.sql("UPDATE refresh_tokens SET used_at = now() - interval '11 seconds' WHERE used_at IS NOT NULL")
    assert (await refreshed(api, ada.refresh))[0] == 401
    assert all(row.revoked_at is not None for row in await tokens_in_database(api))
    assert (await refreshed(api, second["refresh_token"]))[0] == 401
    assert (await api.login(ada.email)).status_code == 200, "another login starts another family"


async def test_a_child_that_is_inserted_while_its_family_is_revoked_is_dead(api: Api, ada: Person) -> None:
    _, second = await refreshed(api, ada.refresh)
    await api.sql("UPDATE refresh_tokens SET revoked_at = now() WHERE id = family_id")
    assert (await refreshed(api, second["refresh_token"]))[0] == 401


@pytest.mark.parametrize("column", ["expires_at", "family_expires_at"])
async def test_an_expired_token_is_refused_without_ending_anything(api: Api, ada: Person, column: str) -> None:
    await api.sql(f"UPDATE refresh_tokens SET {column} = now() - interval '1 second'")  # noqa: S608 - a test's own
    assert (await refreshed(api, ada.refresh))[0] == 401
    (row,) = await tokens_in_database(api)
    assert row.used_at is None


async def test_the_idle_expiry_never_outlives_the_family(settings: Settings) -> None:
    async with running_api(api_settings(settings, refresh_idle_ttl_s=5000, refresh_absolute_ttl_s=100)) as api:
        ada = await api.person("ada")
        await refreshed(api, ada.refresh)
        root, child = await tokens_in_database(api)
        assert child.expires_at == child.family_expires_at == root.family_expires_at


async def test_a_disabled_account_cannot_refresh_and_its_family_ends(api: Api, ada: Person) -> None:
    await api.sql("UPDATE users SET disabled_at = now()")
    assert (await refreshed(api, ada.refresh))[0] == 401
    assert all(row.revoked_at is not None for row in await tokens_in_database(api))
    me = await api.client.get("/api/v1/auth/me", headers=ada.headers)
    assert me.status_code == 401


async def test_logout_ends_the_family_and_answers_the_same_however_often(api: Api, ada: Person) -> None:
    _, second = await refreshed(api, ada.refresh)
    for token in (second["refresh_token"], second["refresh_token"], ada.refresh, "never issued"):
        answer = await api.client.post("/api/v1/auth/logout", json={"refresh_token": token})
        assert (answer.status_code, answer.content) == (204, b"")
    assert (await refreshed(api, second["refresh_token"]))[0] == 401


async def test_a_child_can_be_given_again_while_the_secret_is_being_replaced(settings: Settings) -> None:
    old = api_settings(settings)
    async with running_api(old) as api:
        ada = await api.person("ada")
        _, second = await refreshed(api, ada.refresh)
    async with running_api(api_settings(settings, jwt_previous_secret=old.jwt_secret)) as api:
        assert (await api.client.get("/api/v1/auth/me", headers=ada.headers)).status_code == 200
        status, again = await refreshed(api, ada.refresh)
        assert (status, again["refresh_token"]) == (200, second["refresh_token"])


async def test_an_admins_token_ends_with_the_role_the_version_or_the_account(api: Api) -> None:
    changes: list[dict[str, object]] = [{"role": Role.USER}, {"token_version": 1}]
    for number, change in enumerate(changes):
        boss = await api.person(f"boss{number}", role=Role.ADMIN)
        assert (await api.client.get("/api/v1/tasks", headers=boss.headers)).status_code == 200
        await api.change_user(boss.email, **change)
        refused = await api.client.get("/api/v1/tasks", headers=boss.headers)
        assert (refused.status_code, refused.json()["code"]) == (401, "invalid_token")


async def test_failed_logins_are_throttled_per_account_and_right_ones_are_not(api: Api, ada: Person) -> None:
    for _ in range(throttle.PER_ACCOUNT + 2):
        assert (await api.login(ada.email)).status_code == 200
    for _ in range(throttle.PER_ACCOUNT):
        assert (await api.login(ada.email, "not the password")).status_code == 401
    refused = await api.login(ada.email)
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many")
    assert 1 <= int(refused.headers["retry-after"]) <= throttle.WINDOW_S
    await api.person("bob")


async def test_guesses_at_once_are_throttled_too(api: Api, ada: Person) -> None:
    answers = await asyncio.gather(*(api.login(ada.email, "not the password") for _ in range(30)))
    statuses = [answer.status_code for answer in answers]
    assert statuses.count(401) == throttle.PER_ACCOUNT
    assert statuses.count(429) == 30 - throttle.PER_ACCOUNT


async def test_a_login_that_finds_no_room_is_put_off_and_not_counted_as_a_failure(
    api: Api, ada: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passwords, "MAX_WAITING", 0)
    for _ in range(throttle.PER_ACCOUNT + 2):
        answer = await api.login(ada.email)
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert int(answer.headers["retry-after"]) >= 1
    monkeypatch.undo()
    assert (await api.login(ada.email)).status_code == 200


async def test_the_throttle_works_without_redis(settings: Settings) -> None:
    away = api_settings(settings, redis_url=REDIS_AWAY)
    async with running_api(away) as api:
        ada = await api.person("ada")
        for _ in range(throttle.PER_ACCOUNT):
            assert (await api.login(ada.email, "not the password")).status_code == 401
        assert (await api.login(ada.email)).status_code == 429


async def test_what_the_throttle_remembers_without_redis_is_bounded(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "MAX_REMEMBERED", 5)
    async with running_api(api_settings(settings, redis_url=REDIS_AWAY)) as api:
        for number in range(12):
            assert (await api.login(f"nobody{number}@example.com")).status_code == 401
        assert len(api.resources.throttle._local) == 5
