"""What the API tells Prometheus about requests, logins, and what is held open or put off."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from api_app import PASSWORD, Api, Person, api_settings, running_api
from taskflow_cli.embedded.ports import free_port
from taskflow_core.settings import Settings
from waiting import eventually_async

LETTER = {"type": "LETTER", "payload": {"to": ["ada"]}}
FINISH = "UPDATE tasks SET status = 'COMPLETED', finished_at = now(), row_version = row_version + 1"


@pytest.fixture
async def api(module_settings: Settings) -> AsyncIterator[Api]:
    async with running_api(api_settings(module_settings, requests_per_minute=3)) as api:
        yield api


async def told(api: Api, *lines: str) -> bool:
    """Whether the exposition has each of these lines."""
    text = (await api.client.get("/metrics")).text
    return all(line in text.splitlines() for line in lines)


async def test_a_request_that_asks_to_wait_is_counted_and_not_timed(api: Api) -> None:
    person = await api.person("waits")
    asked = api.client.post("/api/v1/tasks", json=LETTER, headers=person.headers | {"Prefer": "wait=30"})
    creating = asyncio.create_task(asked)

    async def is_held() -> bool:  # the scrape itself is in flight, too
        return await told(api, "taskflow_waits_open 1.0", "taskflow_http_requests_in_flight 2.0")

    await eventually_async(is_held)
    await api.sql(FINISH)
    await creating
    labels = 'method="POST",route="/api/v1/tasks"'
    assert await told(
        api,
        f'taskflow_http_requests_total{{{labels},status="201"}} 1.0',
        f"taskflow_http_request_duration_seconds_count{{{labels}}} 0.0",
        "taskflow_waits_open 0.0",
        "taskflow_http_requests_in_flight 1.0",
    )


async def test_what_is_refused_for_now_is_counted_by_its_problem(api: Api) -> None:
    person = await api.person("eager")
    statuses = [(await api.client.get("/api/v1/auth/me", headers=person.headers)).status_code for _ in range(4)]
    assert statuses == [200, 200, 200, 429]
    assert await told(api, 'taskflow_http_refused_total{code="rate_limited"} 1.0')


async def test_logins_are_counted_by_how_they_ended(api: Api) -> None:
    person = await api.person("guessed")
    statuses = [(await api.login(person.email, "wrong password")).status_code for _ in range(11)]
    assert statuses == [401] * 10 + [429]
    assert await told(
        api,
        'taskflow_logins_total{outcome="succeeded"} 1.0',
        'taskflow_logins_total{outcome="failed"} 10.0',
        'taskflow_logins_total{outcome="limited"} 1.0',
        'taskflow_http_refused_total{code="too_many"} 1.0',
    )


async def test_deliveries_that_redis_was_not_there_for_are_counted(module_settings: Settings) -> None:
    nowhere = SecretStr(f"redis://127.0.0.1:{free_port()}/0")
    async with running_api(api_settings(module_settings, redis_url=nowhere)) as api:
        person: Person = await api.person("patient")
        await api.task(person)
        assert await told(api, "taskflow_deliveries_deferred_total 1.0")


async def test_connections_of_the_pool_are_counted_while_they_are_in_use(api: Api) -> None:
    most = "taskflow_database_pool_connections_max 10.0"
    assert await told(api, "taskflow_database_pool_connections_in_use 0.0", most)
    async with api.resources.engine.connect():
        assert await told(api, "taskflow_database_pool_connections_in_use 1.0", most)
    assert (await api.login("nobody@example.com", PASSWORD)).status_code == 401
    assert await told(api, "taskflow_database_pool_connections_in_use 0.0", most)
