"""What travels from one place into another: SQL in every filter, redirects, cookies, forms of other sites, bombs."""

import gzip
import json
import re
import zlib
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from httpx2 import Response
from pydantic import SecretStr

from api_app import Api, Person, api_settings, running_api
from taskflow_api.document import render
from taskflow_api.operations import Operation, operations
from taskflow_core.models.users import Role
from taskflow_core.settings import Settings

DOCUMENT: dict[str, Any] = json.loads(render())
SQL = [
    "' OR '1'='1",
    "' OR 1=1 --",
    "'; DROP TABLE tasks; --",
    "') UNION SELECT pg_sleep(9) --",
    "1); SELECT pg_terminate_backend(pid) FROM pg_stat_activity; --",
    '" OR ""="',
    "\\' OR 1=1 --",
    "%' OR '%'='",
    "%s %(x)s %%",
    ":owner_id :x",
    "$1 $$ $x$",
    "{0} {x}",
    "%",
    "_" * 8,
]
FILTERS = [
    (operation.path, parameter["name"])
    for operation in operations(DOCUMENT)
    for parameter in operation.spec.get("parameters", [])
    if operation.method == "get" and parameter["in"] == "query"
]
BULK = sorted(DOCUMENT["components"]["schemas"]["UnfinishedFilter"]["properties"])
ELSEWHERE = {"Host": "evil.example", "X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example"}
MANY = 50_000_000
FOR_OPERATORS = re.compile("/(admin|workers)/")


@pytest.fixture(scope="module")
async def api(module_settings: Settings) -> AsyncIterator[Api]:
    key = SecretStr("k" * 40)
    async with running_api(api_settings(module_settings, webhook_key=key)) as api:
        yield api


@pytest.fixture(scope="module")
async def admin(api: Api) -> Person:
    return await api.person("boss", role=Role.ADMIN)


@pytest.fixture(scope="module")
async def ada(api: Api) -> Person:
    return await api.person("ada")


@pytest.fixture(scope="module")
async def secret_id(api: Api) -> str:
    """Return the id of a task that is not Ada's, which no filter of hers may find."""
    made = await api.task(await api.person("bob"), title="a secret", tags=["secret"], dedup_key="secret")
    return str(made["id"])


def filled(path: str) -> str:
    """Return the path with ids of nothing."""
    for part in path.split("{")[1:]:
        name = part.partition("}")[0]
        path = path.replace(f"{{{name}}}", "default" if name == "name" else str(uuid4()))
    return path


async def schema_of(api: Api) -> list[Any]:
    query = "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2"
    return await api.fetch(query)


@pytest.mark.parametrize(("path", "name"), FILTERS, ids=lambda part: str(part))
async def test_sql_in_a_filter_is_a_word_or_refused(
    api: Api, ada: Person, admin: Person, secret_id: str, path: str, name: str
) -> None:
    before = await schema_of(api), await api.rows()
    person = admin if path.startswith(("/api/v1/admin", "/api/v1/workers")) else ada
    for value in SQL:
        answer = await api.client.get(filled(path), params={name: value}, headers=person.headers)
        assert answer.status_code in (200, 404, 422), (value, answer.text)
        assert secret_id not in answer.text
    assert (await schema_of(api), await api.rows()) == before


@pytest.mark.parametrize("name", BULK)
async def test_sql_in_the_filter_of_many_is_a_word_or_refused(api: Api, ada: Person, secret_id: str, name: str) -> None:
    before = await api.rows()
    for value in SQL:
        body = {"filter": {name: value}, "expected_count": 1}
        answer = await api.client.post("/api/v1/tasks:bulkCancel", json=body, headers=ada.headers)
        assert answer.status_code in (403, 409, 422), (value, answer.text)
    assert await api.fetch("SELECT status FROM tasks WHERE id = :id", id=secret_id) == [("PENDING",)]
    assert await api.rows() == before


async def test_the_wildcards_of_sql_are_characters_like_any_other(api: Api) -> None:
    eve = await api.person("eve")
    titles = ["100% sure", "snake_case_name", "back\\slash", "plain text here"]
    for title in titles:
        await api.task(eve, title=title)
    for words in ("100%", "snake_case", "back\\s", "%", "_", "a%e", "\\"):
        answer = await api.client.get("/api/v1/tasks", params={"q": words}, headers=eve.headers)
        found = {task["title"] for task in answer.json()["items"]}
        assert found == {title for title in titles if words in title}, words
    admin = await api.person("root", role=Role.ADMIN)
    for begins in ("%", "_ve", "ev%"):
        page = await api.client.get("/api/v1/admin/users", params={"email": begins}, headers=admin.headers)
        assert page.json()["items"] == [], begins


@pytest.mark.parametrize(
    "operation", [pytest.param(item, id=f"{item.method} {item.path}") for item in operations(DOCUMENT)]
)
async def test_no_answer_sets_a_cookie_leads_elsewhere_or_opens_itself_to_other_sites(
    api: Api, admin: Person, operation: Operation
) -> None:
    """Without cookies nothing is sent along by a browser, so no other site can act for somebody (CSRF)."""
    other_site = {"Origin": "https://evil.example", **ELSEWHERE}
    url = filled(operation.path)
    for headers in (other_site, other_site | admin.headers):
        if operation.path.endswith(("/logout-all", "/password")):
            headers = other_site
        answer = await api.client.request(operation.method, url, content=b"{}", headers=headers)
        assert answer.status_code not in range(300, 400)
        assert "set-cookie" not in answer.headers
        assert not [name for name in answer.headers if name.startswith("access-control-")]
        assert "evil.example" not in str(answer.headers) + answer.text
    preflight = await api.client.options(url, headers=other_site | {"Access-Control-Request-Method": "POST"})
    assert preflight.status_code == 405
    assert not [name for name in preflight.headers if name.startswith("access-control-")]


async def test_a_method_that_a_verb_does_not_know_is_405_with_those_it_knows(api: Api, ada: Person) -> None:
    """The address of a verb is also that of a bare id, which a colon never belongs to."""
    verbs = [path for path in DOCUMENT["paths"] if ":" in path]
    assert len(verbs) >= 15
    for path in verbs:
        for method in ("GET", "PUT", "PATCH", "DELETE"):
            headers = ada.headers | {"If-Match": "no tag"}
            answer = await api.client.request(method, filled(path), content=b"{", headers=headers)
            assert (answer.status_code, answer.headers.get("allow")) == (405, "POST"), (method, path, answer.text)
            assert answer.json()["code"] == "method_not_allowed"


async def test_a_verb_that_there_is_not_is_not_found_whatever_the_method(api: Api, ada: Person) -> None:
    """An unknown verb behind an id, or behind a collection, is no wrong id and no wrong method."""
    paths = {path.partition(":")[0] for path in DOCUMENT["paths"] if ":" in path}
    paths |= {path for path in DOCUMENT["paths"] if path.endswith("_id}") and not FOR_OPERATORS.search(path)}
    for path in sorted(paths):
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            answer = await api.client.request(method, f"{filled(path)}:explode", content=b"{", headers=ada.headers)
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), (method, path, answer.text)
            assert "allow" not in answer.headers


@pytest.mark.parametrize(
    "path",
    ["//evil.example/", "/\\evil.example", "/api/v1/tasks/", "//evil.example/api/v1/tasks", "/http://evil.example"],
)
async def test_an_odd_address_is_not_found_rather_than_redirected(api: Api, ada: Person, path: str) -> None:
    answer = await api.client.get(f"http://taskflow.test{path}", headers=ada.headers | ELSEWHERE)
    assert answer.status_code in (404, 405, 422)
    assert "location" not in answer.headers


async def test_where_a_new_thing_is_does_not_depend_on_who_the_client_says_we_are(api: Api, ada: Person) -> None:
    body = {"type": "LETTER", "payload": {"to": []}}
    made = await api.client.post("/api/v1/tasks", json=body, headers=ada.headers | ELSEWHERE)
    assert made.headers["location"] == f"/api/v1/tasks/{made.json()['id']}"


@pytest.mark.parametrize("name", ["access_token", "token", "session", "Authorization", "refresh_token"])
async def test_a_token_in_a_cookie_or_in_the_address_is_no_token(api: Api, ada: Person, name: str) -> None:
    for token in (ada.access, ada.refresh, f"Bearer {ada.access}"):
        by_cookie = await api.client.get("/api/v1/task-types", headers={"Cookie": f"{name}={token}"})
        by_query = await api.client.get("/api/v1/task-types", params={name: token})
        assert (by_cookie.status_code, by_query.status_code) == (401, 401)


@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", None]
)
async def test_a_form_of_another_site_is_refused_by_its_media_type(
    api: Api, ada: Person, media_type: str | None
) -> None:
    headers = ada.headers | ({"Content-Type": media_type} if media_type else {})
    content = json.dumps({"type": "LETTER", "payload": {"to": []}})
    for path in ("/api/v1/tasks", "/api/v1/auth/login", "/api/v1/webhooks"):
        answer = await api.client.post(path, content=content.encode(), headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


async def post_packed(api: Api, person: Person, packed: bytes, coding: str) -> Response:
    headers = person.headers | {"Content-Type": "application/json", "Content-Encoding": coding}
    return await api.client.post("/api/v1/tasks", content=packed, headers=headers)


async def test_a_bomb_of_fifty_megabytes_is_not_unpacked(api: Api, ada: Person) -> None:
    bomb = b'{"type": "LETTER", "payload": {"to": ["' + b"0" * MANY + b'"]}}'
    for coding, packed in (("gzip", gzip.compress(bomb)), ("deflate", zlib.compress(bomb)), ("gzip, gzip", b"x")):
        assert len(packed) < MANY / 500
        refused = await post_packed(api, ada, packed, coding)
        assert (refused.status_code, refused.json()["code"]) == (415, "unsupported_media_type")
    plain = await api.client.post(
        "/api/v1/tasks", content=gzip.compress(bomb), headers=ada.headers | {"Content-Type": "application/json"}
    )
    assert (plain.status_code, plain.json()["code"]) == (400, "bad_json"), "what does not say that it is packed is not"
