"""Every route, sent by every role, without a token and by API keys: who is let in, and who is not."""

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from importlib import import_module
from itertools import chain
from pkgutil import iter_modules
from typing import Any
from uuid import uuid4

import pytest
from pydantic import SecretStr

from access_table import NEEDS, Need
from api_app import Api, Person, api_settings, running_api
from taskflow_api import routes
from taskflow_api.app import create_app
from taskflow_core.handlers import Registry
from taskflow_core.models.users import Role, User
from taskflow_core.scopes import SCOPES
from taskflow_core.settings import ApiSettings, Settings

RANK = {None: 0, Role.USER: 1, Role.OPERATOR: 2, Role.ADMIN: 3}
HTTP = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}


def built() -> tuple[list[Any], dict[str, Any]]:
    """Return the routes of the app and of every module of routes, and what OpenAPI says of them."""
    settings = ApiSettings(
        database_url=SecretStr("postgresql://u:p@127.0.0.1:1/x"),
        redis_url=SecretStr("redis://127.0.0.1:1/0"),
        jwt_secret=SecretStr("x" * 32),
    )
    app = create_app(settings, registry=Registry({}))
    modules = [import_module(f"{routes.__name__}.{module.name}") for module in iter_modules(routes.__path__)]
    return [*app.routes, *chain.from_iterable(module.router.routes for module in modules)], app.openapi()["paths"]


def listed(found: list[Any]) -> Iterator[tuple[str, str]]:
    for route in found:
        for method in (getattr(route, "methods", None) or set()) - {"HEAD"}:
            yield method, route.path


FOUND, DESCRIBED = built()
ROUTES = sorted(set(listed(FOUND)))


@dataclass
class Caller:
    """Somebody with a role, a key for everything, and a key for everything but one scope."""

    person: Person
    key: str

    async def token(self, api: Api) -> str:
        """Return an access token of this moment: some routes end those before."""
        async with api.resources.sessions() as session:
            user = await session.get(User, self.person.id)
        assert user is not None
        return api.resources.tokens.issue(user, session_id=uuid4())


@pytest.fixture(scope="module")
async def api(module_settings: Settings) -> AsyncIterator[Api]:
    async with running_api(api_settings(module_settings, access_cache_s=0)) as api:
        yield api


@pytest.fixture(scope="module")
async def callers(api: Api) -> dict[Role, Caller]:
    found = {}
    for role in Role:
        person = await api.person(role.lower(), role=role)
        found[role] = Caller(person, await new_key(api, person, *SCOPES))
    return found


async def new_key(api: Api, person: Person, *scopes: str) -> str:
    made = await api.client.post("/api/v1/api-keys", json={"name": "k", "scopes": scopes}, headers=person.headers)
    assert made.status_code == 201, made.text
    key: str = made.json()["key"]
    return key


async def sent(api: Api, method: str, path: str, token: str | None) -> int:
    """Send a request to somebody's thing that does not exist, with a body that no route takes."""
    url = re.sub(r"\{[a-z_]*name\}", "nothing", path)
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    answer = await api.client.request(method, re.sub(r"\{[a-z_]+\}", str(uuid4()), url), content=b"[]", headers=headers)
    return answer.status_code


def expected(need: Need, role: Role | None) -> set[int]:
    """Return what whoever has that role is not answered, or is."""
    if need.role is not None and role is None:
        return {401}
    return {403} if RANK[role] < RANK[need.role] else set()


def check(status: int, refusal: set[int], who: str) -> None:
    if refusal:
        assert status in refusal, who
    else:
        assert status not in {401, 403, 405, 500}, who


def test_every_route_has_its_row_in_the_table() -> None:
    assert set(ROUTES) <= set(NEEDS), "say in tests/access_table.py who may send it"
    described = {(method.upper(), path) for path, item in DESCRIBED.items() for method in item if method in HTTP}
    assert described <= set(ROUTES)


@pytest.mark.parametrize(("method", "path"), ROUTES, ids=lambda part: str(part))
async def test_a_route_lets_in_whom_the_table_says_and_nobody_else(
    api: Api, callers: dict[Role, Caller], method: str, path: str
) -> None:
    need = NEEDS[method, path]
    check(await sent(api, method, path, None), expected(need, None), "nobody")
    for role, caller in callers.items():
        check(await sent(api, method, path, await caller.token(api)), expected(need, role), role)
        if need.role is None:
            continue
        refusal = expected(need, role) if need.scope else {403}
        check(await sent(api, method, path, caller.key), refusal, f"a key of {role}")


@pytest.mark.parametrize("scope", SCOPES)
async def test_a_scope_opens_its_own_routes_and_no_other(api: Api, callers: dict[Role, Caller], scope: str) -> None:
    boss = callers[Role.ADMIN]
    person = Person(boss.person.id, boss.person.email, await boss.token(api), "")
    key = await new_key(api, person, scope)
    for method, path in ROUTES:
        need = NEEDS[method, path]
        if need.role is not None:
            refusal = set() if need.scope == scope else {403}
            check(await sent(api, method, path, key), refusal, f"{method} {path}")
