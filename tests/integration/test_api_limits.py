"""Limits: requests of an owner, statements and locks of the database."""

import asyncio
from typing import Any

import pytest
from httpx2 import ASGITransport, AsyncClient, Response
from sqlalchemy import text

from api_app import PASSWORD, Api, Person, api_settings, running_api
from taskflow_api import limiter
from taskflow_core.settings import ApiSettings, Settings
from waiting import eventually_async

URL = "/api/v1/task-types"


async def ask(api: Api, person: Person) -> Response:
    return await api.client.get(URL, headers=person.headers)


@pytest.fixture
def few(settings: Settings) -> ApiSettings:
    """Allow twelve requests a minute: one every five seconds."""
    return api_settings(settings, requests_per_minute=12)


async def test_an_owner_may_send_so_many_requests_and_reads_where_they_stand(few: ApiSettings) -> None:
    async with running_api(few) as api:
        ada, bob = await api.person("ada"), await api.person("bob")
        answers = [await ask(api, ada) for _ in range(13)]
        assert [answer.status_code for answer in answers] == [200] * 12 + [429]
        assert answers[0].headers["ratelimit-policy"] == '"requests";q=12;w=60'
        assert answers[0].headers["ratelimit"] == '"requests";r=11;t=5'
        refused = answers[-1]
        assert (refused.json()["code"], refused.headers["retry-after"]) == ("rate_limited", "5")
        assert refused.headers["ratelimit"].startswith('"requests";r=0;t=')
        assert (await ask(api, bob)).status_code == 200
        assert "ratelimit" not in (await api.client.get("/health/live")).headers


async def register(api: Api, number: int, *, address: str = "192.0.2.1") -> Response:
    body = {"email": f"{number}@example.com", "password": PASSWORD}
    transport = ASGITransport(app=api.app, client=(address, 40_000))
    async with AsyncClient(transport=transport, base_url="http://taskflow.test") as client:
        return await client.post("/api/v1/auth/register", json=body)


@pytest.mark.parametrize("changes", [{}, {"redis_url": "redis://127.0.0.1:1/0"}], ids=["with Redis", "without Redis"])
async def test_an_address_may_register_so_many_accounts_whatever_comes_of_them(
    settings: Settings, changes: dict[str, Any]
) -> None:
    async with running_api(api_settings(settings, registrations_per_minute=3, **changes)) as api:
        answers = [await register(api, number) for number in (1, 1, 2, 3)]
        assert [answer.status_code for answer in answers] == [201, 409, 201, 429]
        assert answers[-1].json()["code"] == "too_many"
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
        assert (await register(api, 3, address="192.0.2.2")).status_code == 201
        assert (await api.login("1@example.com")).status_code == 200


async def test_all_processes_draw_from_one_bucket(few: ApiSettings) -> None:
    async with running_api(few) as one, running_api(few) as other:
        ada = await one.person("ada")
        answers = await asyncio.gather(*(ask(api, ada) for _ in range(10) for api in (one, other)))
        assert sorted(answer.status_code for answer in answers) == [200] * 12 + [429] * 8


async def test_most_requests_ask_nobody(settings: Settings) -> None:
    async with running_api(api_settings(settings, requests_per_minute=60_000)) as api:
        ada = await api.person("ada")
        await api.resources.redis.config_resetstat()
        answers = await asyncio.gather(*(ask(api, ada) for _ in range(60)))
        assert {answer.status_code for answer in answers} == {200}
        commands: Any = await api.resources.redis.info("commandstats")
        assert commands["cmdstat_eval"]["calls"] < 20


async def test_without_redis_each_process_keeps_the_limit_by_itself(settings: Settings) -> None:
    away = api_settings(settings, requests_per_minute=12, redis_url="redis://127.0.0.1:1/0")
    async with running_api(away) as api:
        ada = await api.person("ada")
        answers = [await ask(api, ada) for _ in range(13)]
        assert [answer.status_code for answer in answers] == [200] * 12 + [429]
        assert answers[0].headers["ratelimit"] == '"requests";r=11;t=5'


async def test_no_limit_is_no_limit(settings: Settings) -> None:
    async with running_api(api_settings(settings, requests_per_minute=0)) as api:
        answer = await ask(api, await api.person("ada"))
        assert answer.status_code == 200
        assert "ratelimit" not in answer.headers


async def test_the_owners_that_are_remembered_are_bounded(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limiter, "MAX_OWNERS", 2)
    async with running_api(api_settings(settings)) as api:
        for name in ("ada", "bob", "eve"):
            assert (await ask(api, await api.person(name))).status_code == 200
        assert len(api.resources.limiter._owners) == 2


async def test_a_token_comes_back_with_time(settings: Settings) -> None:
    async with running_api(api_settings(settings, requests_per_minute=120)) as api:
        ada = await api.person("ada")
        await asyncio.gather(*(ask(api, ada) for _ in range(121)))

        async def allowed() -> bool:
            return (await ask(api, ada)).status_code == 200

        await eventually_async(allowed)


@pytest.mark.parametrize("verb", ["POST", "DELETE"])
async def test_a_lock_that_is_not_given_in_time_is_a_503_and_changes_nothing(settings: Settings, verb: str) -> None:
    async with running_api(api_settings(settings, database_timeout_s=0.5)) as api:
        ada = await api.person("ada")
        task = await api.task(ada)
        async with api.resources.sessions() as session:
            await session.execute(text("SELECT FROM tasks FOR UPDATE"))
            path = f"/api/v1/tasks/{task['id']}" + (":cancel" if verb == "POST" else "")
            refused = await api.client.request(verb, path, headers=ada.headers)
            assert (refused.status_code, refused.json()["code"]) == (503, "timed_out"), refused.text
            assert refused.headers["retry-after"] == "1"
        read = await api.client.get(f"/api/v1/tasks/{task['id']}", headers=ada.headers)
        assert read.json() == task


async def test_a_statement_that_takes_too_long_is_a_503(settings: Settings) -> None:
    async with running_api(api_settings(settings, database_timeout_s=0.5)) as api:
        ada = await api.person("ada")
        await api.task(ada)
        await api.sql("ALTER TABLE tasks RENAME TO real_tasks")
        await api.sql("CREATE VIEW tasks AS SELECT real_tasks.* FROM real_tasks, pg_sleep(5)")
        refused = await api.client.get("/api/v1/tasks", headers=ada.headers)
        assert (refused.status_code, refused.json()["code"]) == (503, "timed_out"), refused.text
