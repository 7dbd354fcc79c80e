"""What attackers try: ids of others on every route, fields that are not theirs to give, bombs and injections."""

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
import structlog
from httpx2 import Response
from pydantic import SecretStr
from sqlalchemy import text

from api_app import Api, Person, api_settings, running_api
from taskflow_api.app import create_app
from taskflow_core.handlers import Registry
from taskflow_core.identifiers import new_id
from taskflow_core.settings import ApiSettings, Settings

JSON = {"Content-Type": "application/json"}
SCHEDULE = {"name": "s", "cron": "0 9 * * *", "task": {"type": "LETTER", "payload": {"to": []}}}
OWNED = ("tasks", "task_events", "schedules", "api_keys", "webhook_endpoints", "refresh_tokens", "users", "queues")
METHODS = ("get", "put", "post", "patch", "delete")
NOT_THEIRS = [
    "id",
    "owner_id",
    "status",
    "state",
    "fence",
    "attempt",
    "worker_id",
    "lane",
    "lease_expires_at",
    "claimed_at",
    "enqueued_at",
    "started_at",
    "result",
    "error",
    "progress",
    "row_version",
    "version",
    "created_at",
    "updated_at",
    "finished_at",
    "batch_id",
    "schedule_id",
    "fire_at",
    "cancel_requested",
    "role",
]
MAKE_KEY = """
INSERT INTO api_keys (id, owner_id, name, hint, key_hash, scopes, expires_at)
VALUES (:id, :owner, 'k', 'tf_', sha256('x'), '{tasks:read}', now() + interval '1 day')
"""
MAKE_WEBHOOK = """
INSERT INTO webhook_endpoints (id, owner_id, url, secret, kinds)
VALUES (:id, :owner, 'https://example.org/', 'x', '{task.completed}')
"""


def operations() -> list[tuple[str, str, Any]]:
    """Return method, path and body of every operation whose path names something."""
    settings = ApiSettings(
        database_url=SecretStr("postgresql://u:p@127.0.0.1:1/x"),
        redis_url=SecretStr("redis://127.0.0.1:1/0"),
        jwt_secret=SecretStr("x" * 32),
    )
    paths = create_app(settings, registry=Registry({})).openapi()["paths"]
    return [
        (method.upper(), path, spec.get("requestBody"))
        for path, operations in paths.items()
        for method, spec in operations.items()
        if "{" in path and method in METHODS
    ]


def body_of(request_body: Any) -> Any:
    """Return a body that is right, so that only the id is wrong: the first example of the description."""
    if request_body is None:
        return None
    content = request_body["content"]["application/json"]
    examples = [example["value"] for example in content.get("examples", {}).values()]
    return examples[0] if examples else content.get("example", {})


@pytest.fixture(scope="module")
async def api(module_settings: Settings) -> AsyncIterator[Api]:
    key = SecretStr("k" * 40)
    async with running_api(api_settings(module_settings, webhook_key=key, max_body_bytes=65_536)) as api:
        yield api


@pytest.fixture(scope="module")
async def ada(api: Api) -> Person:
    return await api.person("ada")


@pytest.fixture(scope="module")
async def bob(api: Api) -> Person:
    return await api.person("bob")


@pytest.fixture(scope="module")
async def ids(api: Api, ada: Person) -> dict[str, str]:
    """Return the ids of what belongs to Ada, by the names that paths have for them."""
    made = {"key_id": str(new_id()), "webhook_id": str(new_id()), "user_id": ada.id, "name": "default"}
    await api.sql(MAKE_KEY, id=made["key_id"], owner=ada.id)
    await api.sql(MAKE_WEBHOOK, id=made["webhook_id"], owner=ada.id)
    schedule = await api.client.post("/api/v1/schedules", json=SCHEDULE, headers=ada.headers)
    made["schedule_id"] = schedule.json()["id"]
    made["task_id"] = (await api.task(ada))["id"]
    async with api.resources.sessions() as session:
        family = text("SELECT family_id::text FROM refresh_tokens WHERE user_id = :id")
        made["session_id"] = (await session.execute(family, {"id": ada.id})).scalar_one()
    return made


async def everything(api: Api) -> dict[str, Any]:
    """Return all that people own, row by row."""
    async with api.resources.sessions() as session:
        rows = {name: text(f"SELECT to_jsonb({name}) FROM {name} ORDER BY 1") for name in OWNED}  # noqa: S608 - ours
        return {name: list((await session.execute(query)).scalars()) for name, query in rows.items()}


@pytest.mark.parametrize(
    ("method", "path", "request_body"), [pytest.param(*each, id=f"{each[0]} {each[1]}") for each in operations()]
)
async def test_the_id_of_anothers_is_an_id_of_nothing(
    api: Api, bob: Person, ids: dict[str, str], method: str, path: str, request_body: Any
) -> None:
    before = await everything(api)
    for known in (ids, {}):
        names = {part.partition("}")[0] for part in path.split("{")[1:]}
        url = path.format(**{name: known.get(name, str(uuid4())) for name in names})
        answer = await api.client.request(method, url, json=body_of(request_body), headers=bob.headers)
        assert answer.status_code in (403, 404), answer.text
        assert answer.json()["code"] in ("forbidden", "not_found")
    assert await everything(api) == before


async def test_the_same_ids_are_something_to_their_owner(api: Api, ada: Person, ids: dict[str, str]) -> None:
    reached = []
    for method, path, _ in operations():
        names = {part.partition("}")[0] for part in path.split("{")[1:]}
        if method == "GET" and names <= {"task_id", "schedule_id", "webhook_id"}:
            answer = await api.client.get(path.format(**ids), headers=ada.headers)
            reached.append((path, answer.status_code))
    assert len(reached) >= 4
    assert {status for _, status in reached} == {200}, reached


@pytest.mark.parametrize("field", NOT_THEIRS)
async def test_a_field_that_is_not_theirs_to_give_is_refused(
    api: Api, ada: Person, ids: dict[str, str], field: str
) -> None:
    before = await everything(api)
    letter = {"type": "LETTER", "payload": {"to": []}}
    attempts: list[tuple[str, str, dict[str, Any], str]] = [
        ("POST", "/api/v1/tasks", letter, field),
        ("PATCH", f"/api/v1/tasks/{ids['task_id']}", {"title": "x"}, field),
        ("POST", f"/api/v1/tasks/{ids['task_id']}:clone", {}, field),
        ("POST", "/api/v1/schedules", SCHEDULE, field),
        ("PATCH", f"/api/v1/schedules/{ids['schedule_id']}", {"name": "x"}, field),
        ("POST", "/api/v1/auth/register", {"email": "eve@example.com", "password": "correct horse"}, field),
    ]
    for method, path, body, name in attempts:
        for value in (None, 1, "ADMIN"):
            refused = await api.client.request(method, path, json=body | {name: value}, headers=ada.headers)
            assert refused.status_code == 422, (method, path, refused.text)
            assert name in [error["field"] for error in refused.json()["errors"]]
    assert await everything(api) == before


async def post(api: Api, person: Person, content: bytes, **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await api.client.post("/api/v1/tasks", content=content, headers=person.headers | JSON | named)


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        pytest.param(b"[" * 10_000 + b"]" * 10_000, {}, 400, id="10,000 nested arrays"),
        pytest.param(b'{"a":' * 10_000 + b"1" + b"}" * 10_000, {}, 400, id="10,000 nested objects"),
        pytest.param(b'{"type": "LETTER", "payload": 1e400}', {}, 400, id="a number beyond all numbers"),
        pytest.param(b"\x1f\x8b\x08\x00", {"Content_Encoding": "gzip"}, 415, id="gzip"),
        pytest.param(b"{}", {"Content_Encoding": "br"}, 415, id="brotli"),
        pytest.param(b"{}", {"Content_Encoding": "identity"}, 422, id="not packed"),
        pytest.param(b"{}", {"Content_Type": "application/json; charset=utf-16"}, 422, id="UTF-8 whatever it says"),
        pytest.param(b"\xfe\xff\x00{\x00}", {}, 400, id="UTF-16"),
        pytest.param(b"{" + b",".join(b'"k%d":1' % n for n in range(5000)) + b"}", {}, 422, id="5,000 unknown fields"),
    ],
)
async def test_a_bomb_is_refused(api: Api, ada: Person, content: bytes, headers: dict[str, str], status: int) -> None:
    refused = await post(api, ada, content, **headers)
    assert refused.status_code == status, refused.text
    assert len(refused.content) < 20_000


async def test_of_a_field_that_is_given_twice_the_last_one_counts(api: Api, ada: Person) -> None:
    content = b'{"type": "NOPE", "type": "LETTER", "payload": {"to": ["a"], "to": ["b"]}}'
    made = await post(api, ada, content)
    assert (made.status_code, made.json()["payload"]["to"]) == (201, ["b"])


@pytest.mark.parametrize(
    "query",
    ["&".join(f"x{n}=1" for n in range(5000)), "q=" + "a" * 60_000, "status=FAILED&" * 2000, "%00=1", "%ff=%ff"],
)
async def test_a_query_of_any_length_is_answered_shortly(api: Api, ada: Person, query: str) -> None:
    refused = await api.client.get(f"/api/v1/tasks?{query}", headers=ada.headers)
    assert refused.status_code == 422
    assert len(refused.content) < 20_000


@pytest.mark.parametrize(
    "value", [b"a\r\nSet-Cookie: x=1", b"a\nb", b"\xff\xfe", b"a\x00b", b"x" * 10_000, "ä".encode()]
)
async def test_a_header_is_never_echoed_unless_it_is_sane(api: Api, ada: Person, value: bytes) -> None:
    with structlog.testing.capture_logs() as lines:
        sent = [(b"X-Request-ID", value), (b"User-Agent", value), (b"Authorization", f"Bearer {ada.access}".encode())]
        answer = await api.client.get("/api/v1/task-types", headers=sent)
    assert answer.status_code == 200
    assert "set-cookie" not in answer.headers
    assert value not in dict(answer.headers.raw).values()
    assert value.decode("latin-1") not in json.dumps(lines, ensure_ascii=False, default=str)


async def test_a_path_is_never_written_to_the_log_as_it_came(api: Api) -> None:
    with structlog.testing.capture_logs() as lines:
        answer = await api.client.get("/api/v1/tasks/%0A%7B%22event%22:%22forged%22%7D")
    assert answer.status_code in (401, 404, 405, 422)
    assert "forged" not in str(lines)
