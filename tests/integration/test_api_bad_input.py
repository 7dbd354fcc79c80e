"""What is wrong with a request is said, field by field, and leaves nothing behind."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

import pytest
import structlog
from httpx2 import Response
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from api_app import PASSWORD, Api, Person, api_settings, running_api
from taskflow_core.settings import Settings

JSON = {"Content-Type": "application/json"}
LETTER: dict[str, Any] = {"type": "LETTER", "payload": {"to": ["ada"]}}
PROBLEM_FIELDS = {"type", "title", "status", "detail", "code", "request_id"}
DEEP = "payload.extra"
BASIC = {"Authorization": "Basic YTpi"}
LOGIN = "/api/v1/auth/login"


@pytest.fixture(scope="module")
async def api(module_settings: Settings) -> AsyncIterator[Api]:
    async with running_api(api_settings(module_settings, max_body_bytes=4096)) as api:
        yield api


@pytest.fixture(scope="module")
async def ada(api: Api) -> Person:
    return await api.person("ada")


def letter(**fields: object) -> bytes:
    return json.dumps(LETTER | fields).encode()


def deep(text: str) -> bytes:
    return f'{{"type": "LETTER", "payload": {{"to": [], "extra": {{"x": {text}}}}}}}'.encode()


def check(answer: Response, status: int, code: str, field: str | None) -> None:
    body = answer.json()
    assert (answer.status_code, body["code"], body["status"]) == (status, code, status), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert body.keys() >= PROBLEM_FIELDS
    assert body["request_id"] == answer.headers["x-request-id"]
    assert field is None or field in [error["field"] for error in body["errors"]], answer.text


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        pytest.param(b"", 400, "bad_json", None, id="nothing"),
        pytest.param(b"{", 400, "bad_json", None, id="half a document"),
        pytest.param(deep("NaN"), 400, "bad_json", None, id="NaN"),
        pytest.param(deep("-Infinity"), 400, "bad_json", None, id="Infinity"),
        pytest.param(deep("1e999"), 400, "bad_json", None, id="a float out of range"),
        pytest.param(deep('"\\ud800"'), 400, "bad_json", None, id="a lone surrogate"),
        pytest.param(b'{"type": "\xff"}', 400, "bad_json", None, id="not UTF-8"),
        pytest.param(b"[" * 2000, 400, "bad_json", None, id="2,000 brackets"),
        pytest.param(b"[" * 1500 + b"]" * 1500, 400, "bad_json", None, id="1,500 levels"),
        pytest.param(deep("[" * 300 + "]" * 300), 422, "invalid", "payload.extra.x", id="300 levels"),
        pytest.param(deep('"a\\u0000b"'), 422, "invalid", "payload.extra.x", id="U+0000 in a value"),
        pytest.param(deep('{"a\\u0000": 1}'), 422, "invalid", "payload.extra.x", id="U+0000 in a key"),
        pytest.param(letter(title="a\0b"), 422, "invalid", "title", id="U+0000 in the title"),
        pytest.param(deep("9" * 30), 422, "invalid", "payload.extra.x", id="an integer of 30 digits"),
        pytest.param(deep("-" + "9" * 300), 422, "invalid", "payload.extra.x", id="one of 300 digits"),
        pytest.param(deep("9" * 3000), 400, "bad_json", None, id="one of 3,000 digits"),
        pytest.param(letter(payload={"to": [], "copies": 1e30}), 422, "invalid", None, id="1e30 for an integer"),
        pytest.param(b"[]", 422, "invalid", "", id="a list"),
        pytest.param(b"null", 422, "invalid", "", id="null"),
        pytest.param(b"{}", 422, "invalid", "type", id="no type"),
        pytest.param(letter(type="NOPE"), 422, "unknown_type", "type", id="an unknown type"),
        pytest.param(letter(type=7), 422, "invalid", "type", id="a type that is no string"),
        pytest.param(letter(payload=[1]), 422, "invalid", "payload", id="a payload that is no object"),
        pytest.param(letter(payload={}), 422, "invalid", "payload.to", id="a payload without a field"),
        pytest.param(letter(payload={"to": ["a", []]}), 422, "invalid", "payload.to.1", id="a wrong item in a list"),
        pytest.param(letter(prioirty=1), 422, "invalid", "prioirty", id="a misspelt field"),
        pytest.param(letter(priority=101), 422, "invalid", "priority", id="priority over its bound"),
        pytest.param(letter(priority="1"), 422, "invalid", "priority", id="priority as a string"),
        pytest.param(letter(priority=True), 422, "invalid", "priority", id="priority as a bool"),
        pytest.param(letter(priority=1.5), 422, "invalid", "priority", id="half a priority"),
        pytest.param(letter(max_attempts=0), 422, "invalid", "max_attempts", id="no attempts"),
        pytest.param(letter(timeout_s=86_401), 422, "invalid", "timeout_s", id="timeout over a day"),
        pytest.param(letter(queue="Not A Queue"), 422, "invalid", "queue", id="a bad queue"),
        pytest.param(letter(queue="a\n"), 422, "invalid", "queue", id="a queue with a line end"),
        pytest.param(letter(title="x" * 201), 422, "invalid", "title", id="a long title"),
        pytest.param(letter(run_at="tomorrow"), 422, "invalid", "run_at", id="no time"),
        pytest.param(letter(run_at="2030-01-01T00:00:00"), 422, "invalid", "run_at", id="a time without a zone"),
        pytest.param(letter(run_at="0001-01-01T00:00:00+14:00"), 422, "invalid", "run_at", id="the year 1"),
        pytest.param(letter(run_at="9999-12-31T23:59:59-14:00"), 422, "invalid", "run_at", id="the year 9999"),
        pytest.param(letter(run_at=1e300), 422, "invalid", "run_at", id="a time as a huge number"),
        pytest.param(letter(delay_s=-1), 422, "invalid", "delay_s", id="a negative delay"),
        pytest.param(letter(delay_s=1e18), 422, "invalid", "delay_s", id="a delay of aeons"),
        pytest.param(
            letter(delay_s=1, run_at="2030-01-01T00:00:00Z"), 422, "invalid", "delay_s", id="run_at and delay_s"
        ),
        pytest.param(letter(tags=["x"] * 21), 422, "invalid", "tags", id="too many tags"),
        pytest.param(letter(tags=["ok", ""]), 422, "invalid", "tags.1", id="an empty tag"),
        pytest.param(letter(dedup_key=""), 422, "invalid", "dedup_key", id="an empty dedup_key"),
        pytest.param(letter(title="x" * 5000), 413, "too_large", None, id="over the body's bound"),
    ],
)
async def test_a_bad_task_is_refused_and_leaves_no_row(
    api: Api, ada: Person, body: bytes, status: int, code: str, field: str | None
) -> None:
    before = await api.rows()
    answer = await api.client.post("/api/v1/tasks", content=body, headers=ada.headers | JSON)
    check(answer, status, code, field)
    assert await api.rows() == before


async def test_an_unknown_type_is_answered_with_the_known_ones(api: Api, ada: Person) -> None:
    answer = await api.client.post("/api/v1/tasks", content=letter(type="NOPE"), headers=ada.headers | JSON)
    assert "LETTER" in answer.json()["errors"][0]["message"]


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "code", "field"),
    [
        pytest.param("GET", "/nothing", {}, 404, "not_found", None, id="no such address"),
        pytest.param("GET", "/api/v1/tasks/", {}, 404, "not_found", None, id="a slash too many"),
        pytest.param("DELETE", "/api/v1/tasks", {}, 405, "method_not_allowed", None, id="a wrong method"),
        pytest.param("POST", "/api/v1/tasks", {"json": LETTER}, 401, "unauthenticated", None, id="no token"),
        pytest.param("POST", "/api/v1/tasks", {"content": b"{"}, 401, "unauthenticated", None, id="token before body"),
        pytest.param("GET", "/api/v1/tasks", {"headers": BASIC}, 401, "unauthenticated", None, id="Basic"),
        pytest.param("POST", LOGIN, {"content": b"a=1"}, 415, "unsupported_media_type", None, id="no Content-Type"),
        pytest.param("POST", LOGIN, {"data": {"a": "1"}}, 415, "unsupported_media_type", None, id="a form"),
        pytest.param("POST", LOGIN, {"json": {"email": 1}}, 422, "invalid", "email", id="an email that is a number"),
        pytest.param("POST", "/api/v1/auth/refresh", {"json": {}}, 422, "invalid", "refresh_token", id="no token"),
        pytest.param("POST", "/api/v1/auth/logout", {"json": {}}, 422, "invalid", "refresh_token", id="nothing to end"),
    ],
)
async def test_a_bad_request_says_what_is_wrong(
    api: Api, method: str, path: str, options: dict[str, Any], status: int, code: str, field: str | None
) -> None:
    before = await api.rows()
    answer = await api.client.request(method, path, **options)
    check(answer, status, code, field)
    assert status != 401 or answer.headers["www-authenticate"].startswith('Bearer realm="taskflow"')
    assert status != 405 or answer.headers["allow"]
    assert await api.rows() == before


@pytest.mark.parametrize("token", ["x", "a.b.c", "x" * 5000, "..", "é"])
async def test_a_token_that_is_none_is_refused(api: Api, token: str) -> None:
    header = (b"Authorization", f"Bearer {token}".encode())
    answer = await api.client.get("/api/v1/tasks", headers=[header])
    check(answer, 401, "invalid_token", None)
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


@pytest.mark.parametrize(
    ("email", "password", "field"),
    [
        pytest.param("nobody", PASSWORD, "email", id="no address"),
        pytest.param("a@b", PASSWORD, "email", id="no dot"),
        pytest.param("a@@example.com", PASSWORD, "email", id="two signs"),
        pytest.param("a b@example.com", PASSWORD, "email", id="a blank"),
        pytest.param("ä@example.com", PASSWORD, "email", id="not ASCII"),
        pytest.param("a\0@example.com", PASSWORD, "email", id="U+0000"),
        pytest.param("a" * 65 + "@example.com", PASSWORD, "email", id="too long"),
        pytest.param("a@example.com", "x" * 7, "password", id="7 characters"),
        pytest.param("a@example.com", "x" * 129, "password", id="129 characters"),
        pytest.param("a@example.com", 12345678, "password", id="a number"),
    ],
)
async def test_a_bad_registration_names_its_field_and_never_echoes_the_password(
    api: Api, email: str, password: object, field: str
) -> None:
    before = await api.rows()
    answer = await api.client.post("/api/v1/auth/register", json={"email": email, "password": password})
    check(answer, 422, "invalid", field)
    assert str(password) not in answer.text
    assert await api.rows() == before


@pytest.mark.parametrize("password", ["x" * 8, "x" * 128, "ä" * 128, "日本語のパスワード", "emoji 🔑🔑🔑"])
async def test_passwords_of_8_to_128_characters_of_any_script_work_in_full(api: Api, password: str) -> None:
    email = f"{uuid4().hex}@example.com"
    made = await api.client.post("/api/v1/auth/register", json={"email": email, "password": password})
    assert made.status_code == 201
    assert (await api.login(email, password)).status_code == 200
    assert (await api.login(email, password[:-1] + "!")).status_code == 401


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("page=0", "page"),
        ("page=-1", "page"),
        ("page=10001&limit=1", "page"),
        ("page=101&limit=100", "page"),
        ("page=1&cursor=abc", "page"),
        ("status=DONE", "status.0"),
        ("type=%00", "type.0"),
        ("queue=%00", "queue"),
        ("tag=a%00b", "tag"),
        ("tag=", "tag"),
        ("created_from=yesterday", "created_from"),
        ("created_from=2026-01-01T00:00:00", "created_from"),
        ("created_to=0001-01-01T00:00:00%2B14:00", "created_to"),
        ("owner_id=7", "owner_id"),
        ("statu=FAILED", "statu"),
        ("&".join(["type=A"] * 21), "type"),
        ("&".join(["status=FAILED"] * 6), "status"),
        ("type=A,B", "type.0"),
        ("q=", "q"),
        ("q=" + "x" * 101, "q"),
        ("q=a%00b", "q"),
        ("q=a%0d%0ab", "q"),
        ("order=random", "order"),
        ("count=yes", "count"),
        ("finished_from=now", "finished_from"),
        ("batch_id=7", "batch_id"),
        ("limit=1e1", "limit"),
        ("limit=10&limit=20x", "limit"),
    ],
)
async def test_a_bad_query_names_its_parameter(api: Api, ada: Person, query: str, field: str) -> None:
    answer = await api.client.get(f"/api/v1/tasks?{query}", headers=ada.headers)
    check(answer, 422, "invalid", field)


@pytest.mark.parametrize("suffix", ["", "/attempts", "/files", "/files/a"])
async def test_an_id_that_is_no_uuid_is_named(api: Api, ada: Person, suffix: str) -> None:
    check(await api.client.get(f"/api/v1/tasks/7{suffix}", headers=ada.headers), 422, "invalid", "task_id")


async def test_the_last_page_within_the_bound_is_served(api: Api, ada: Person) -> None:
    assert (await api.client.get("/api/v1/tasks?page=100&limit=100", headers=ada.headers)).status_code == 200


async def test_a_chunked_body_is_counted_while_it_arrives(api: Api, ada: Person) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 1_000_000:
            sent += 1000
            yield b" " * 1000

    answer = await api.client.post("/api/v1/tasks", content=endless(), headers=ada.headers | JSON)
    check(answer, 413, "too_large", None)
    assert sent <= 6000


@pytest.mark.parametrize(("given_id", "kept"), [("abc-1._X", True), ("x" * 129, False), ("a b", False), ("", False)])
async def test_a_sane_request_id_is_kept_and_another_is_replaced(api: Api, given_id: str, kept: bool) -> None:
    answer = await api.client.get("/nothing", headers={"X-Request-ID": given_id})
    assert (answer.headers["x-request-id"] == given_id) is kept
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


async def test_every_answer_carries_the_security_headers(api: Api) -> None:
    for path in ("/nothing", "/health/live", "/api/v1/tasks", "/docs"):
        headers = (await api.client.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "access-control-allow-origin" not in headers
        assert "unsafe" not in headers["content-security-policy"]


def values() -> st.SearchStrategy[Any]:
    leaves = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=True)
        | st.text(st.characters(codec=None, exclude_categories=()))
        | st.sampled_from(["LETTER", "2030-01-01T00:00:00Z", "default", "a\0b", "\ud800"])
    )
    return st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=15)


def bodies() -> st.SearchStrategy[Any]:
    names = ["type", "payload", "title", "queue", "priority", "run_at", "delay_s", "max_attempts", "timeout_s", "tags"]
    fields = st.dictionaries(st.sampled_from([*names, "dedup_key"]), values(), max_size=4)
    extra = st.fixed_dictionaries({"to": st.lists(values(), max_size=3), "extra": values(), "copies": values()})
    return values() | fields.map(lambda changes: LETTER | changes) | extra.map(lambda body: LETTER | {"payload": body})


@pytest.fixture
def quiet_logs() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


@pytest.mark.usefixtures("quiet_logs")
async def test_no_json_body_whatsoever_is_a_500(api: Api, ada: Person) -> None:
    made: list[bytes] = []

    @hypothesis_settings(max_examples=300, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
    @given(bodies())
    def collect(body: Any) -> None:
        made.append(json.dumps(body).encode())

    collect()
    statuses = set()
    for body in made:
        for path in ("/api/v1/tasks", "/api/v1/auth/refresh"):
            answer = await api.client.post(path, content=body, headers=ada.headers | JSON)
            assert answer.status_code < 500, (body, answer.text)
            statuses.add(answer.status_code)
    assert statuses >= {201, 400, 422}
