"""The API while PostgreSQL is away, the schema is missing, or something unexpected happens."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import psycopg
import pytest
import structlog
from psycopg import sql

from api_app import PASSWORD, Api, api_settings, running_api
from taskflow_core.database import plain_url
from taskflow_core.settings import Settings
from waiting import eventually_async

LETTER = {"type": "LETTER", "payload": {"to": []}}


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Api]:
    async with running_api(api_settings(settings, database_timeout_s=5.0)) as api:
        yield api


@contextmanager
def away(settings: Settings, postgres_url: str) -> Iterator[None]:
    """Cut every connection to the test's database and let no new one in."""
    name = plain_url(settings.database_url).rpartition("/")[2]
    allow = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(allow.format(sql.Identifier(name), sql.Literal(False)))
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
        yield
        admin.execute(allow.format(sql.Identifier(name), sql.Literal(True)))


async def test_postgres_away_is_503_everywhere_and_the_api_recovers_by_itself(
    api: Api, settings: Settings, postgres_url: str
) -> None:
    ada = await api.person("ada")
    assert (await api.client.get("/health/ready")).json()["status"] == "ok"
    with away(settings, postgres_url):
        answers = [
            await api.client.post("/api/v1/tasks", json=LETTER, headers=ada.headers),
            await api.client.get("/api/v1/tasks", headers=ada.headers),
            await api.login(ada.email),
            await api.client.post("/api/v1/auth/refresh", json={"refresh_token": ada.refresh}),
            await api.client.get("/health/ready"),
        ]
        for answer in answers:
            assert (answer.status_code, answer.json()["code"]) == (503, "unavailable"), answer.text
            assert int(answer.headers["retry-after"]) >= 1
        assert (await api.client.get("/health/live")).status_code == 200

    async def created() -> bool:
        answer = await api.client.post("/api/v1/tasks", json=LETTER, headers=ada.headers)
        return answer.status_code == 201

    await eventually_async(created)
    assert (await api.client.get("/health/ready")).status_code == 200


async def test_an_older_schema_or_none_is_not_ready_and_a_newer_one_is(api: Api) -> None:
    await api.sql("UPDATE alembic_version SET version_num = 'from_the_future'")
    assert (await api.client.get("/health/ready")).status_code == 200
    await api.sql("UPDATE alembic_version SET version_num = '0001'")
    answer = await api.client.get("/health/ready")
    assert answer.status_code == 503
    assert "0001" in answer.json()["detail"]
    await api.sql("DROP TABLE alembic_version")
    assert (await api.client.get("/health/ready")).status_code == 503


async def test_an_unexpected_error_is_a_500_that_tells_nothing_and_a_log_line_that_tells_all(api: Api) -> None:
    ada = await api.person("ada")
    await api.sql("ALTER TABLE task_events RENAME TO gone")
    with structlog.testing.capture_logs() as lines:
        answer = await api.client.post("/api/v1/tasks", json=LETTER, headers=ada.headers)
    body = answer.json()
    assert (answer.status_code, body["code"]) == (500, "internal_error")
    assert "task_events" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    (failure,) = [line for line in lines if line["event"] == "request.failed"]
    assert "task_events" in str(failure["exc_info"])
    (finished,) = [line for line in lines if line["event"] == "request.finished"]
    assert (finished["status"], finished["route"], finished["user_id"]) == (500, "/api/v1/tasks", ada.id)
    await api.sql("ALTER TABLE gone RENAME TO task_events")
    assert (await api.rows())["tasks"] == 0
    await api.task(ada)


async def test_the_parameters_of_a_failed_statement_are_not_in_the_log(api: Api) -> None:
    await api.sql("ALTER TABLE users DROP COLUMN last_login_at")
    with structlog.testing.capture_logs() as lines:
        answer = await api.client.post("/api/v1/auth/register", json={"email": "a@example.com", "password": PASSWORD})
    assert answer.status_code == 500
    assert "$bcrypt" not in str(lines)
