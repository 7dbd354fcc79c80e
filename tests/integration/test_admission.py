"""The gate of every request: what it believes of a USER, for how long, and what it looks up each time."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import event

from api_app import PASSWORD, Api, Person, api_settings, running_api
from taskflow_core.models.users import Role
from taskflow_core.settings import ApiSettings, Settings

URL = "/api/v1/task-types"  # reads nothing from the database


@pytest.fixture(scope="module")
def believing(module_settings: Settings) -> ApiSettings:
    return api_settings(module_settings, access_cache_s=60)


@pytest.fixture(scope="module")
async def api(believing: ApiSettings) -> AsyncIterator[Api]:
    async with running_api(believing) as api:
        yield api


@pytest.fixture(scope="module")
async def other(believing: ApiSettings) -> AsyncIterator[Api]:
    """Run another process's API on the same database, as far as this gate is concerned."""
    async with running_api(believing) as api:
        yield api


@pytest.fixture
async def ada(api: Api) -> Person:
    return await api.person(f"ada-{uuid4().hex[:8]}")


@contextmanager
def statements(api: Api) -> Iterator[list[str]]:
    """Collect the statements that the API sends to its database."""
    sent: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement)

    engine = api.resources.engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    yield sent
    event.remove(engine, "before_cursor_execute", note)


async def get(api: Api, token: str) -> int:
    return (await api.client.get(URL, headers={"Authorization": f"Bearer {token}"})).status_code


async def key_of(api: Api, person: Person) -> str:
    body = {"name": "ci", "scopes": ["task-types:read"]}
    key: str = (await api.client.post("/api/v1/api-keys", json=body, headers=person.headers)).json()["key"]
    return key


async def test_a_users_token_and_key_are_looked_up_once_and_then_believed(api: Api, ada: Person) -> None:
    key = await key_of(api, ada)
    with statements(api) as first:
        assert [await get(api, ada.access), await get(api, key)] == [200, 200]
    assert first
    with statements(api) as later:
        assert [await get(api, token) for token in (ada.access, key) * 5] == [200] * 10
    assert later == []


async def test_the_token_and_key_of_staff_are_looked_up_each_time(api: Api) -> None:
    operator = await api.person(f"operator-{uuid4().hex[:8]}", role=Role.OPERATOR)
    for token in (operator.access, await key_of(api, operator)):
        for _ in range(2):
            with statements(api) as sent:
                assert await get(api, token) == 200
            assert len([statement for statement in sent if statement.startswith("SELECT")]) == 1


async def test_what_is_changed_elsewhere_is_believed_until_it_is_read_again(
    api: Api, other: Api, ada: Person, module_settings: Settings
) -> None:
    assert [await get(process, ada.access) for process in (api, other)] == [200, 200]
    assert (await api.client.post("/api/v1/auth/logout-all", headers=ada.headers)).status_code == 204
    assert [await get(process, ada.access) for process in (api, other)] == [401, 200]
    secret = api.resources.settings.jwt_secret
    async with running_api(api_settings(module_settings, access_cache_s=0, jwt_secret=secret)) as doubtful:
        assert await get(doubtful, ada.access) == 401


async def test_a_token_that_is_newer_than_what_is_believed_is_looked_up(api: Api, other: Api, ada: Person) -> None:
    assert await get(other, ada.access) == 200
    body = {"old_password": PASSWORD, "new_password": "another horse battery"}
    changed = await api.client.post("/api/v1/auth/password", json=body, headers=ada.headers)
    assert await get(other, changed.json()["access_token"]) == 200
    assert await get(other, ada.access) == 401, "the other process has seen the newer version meanwhile"


async def test_a_token_of_an_account_that_is_gone_is_refused(api: Api, ada: Person) -> None:
    await api.sql("DELETE FROM users WHERE id = :id", id=ada.id)
    assert [await get(api, ada.access) for _ in range(2)] == [401, 401]
