"""PostgreSQL and Valkey as the embedded platform runs them."""

import psycopg
import pytest
from redis import Redis
from sqlalchemy import text

from taskflow_core import schema
from taskflow_core.database import Sessions
from taskflow_core.settings import Settings


def test_the_database_of_a_test_has_the_newest_schema(settings: Settings) -> None:
    assert schema.current(settings) == schema.head()


async def test_a_session_reads_an_empty_table_of_tasks(sessions: Sessions) -> None:
    async with sessions() as session:
        assert (await session.execute(text("SELECT count(*) FROM tasks"))).scalar_one() == 0


def test_postgresql_refuses_a_wrong_password(postgres_url: str) -> None:
    address = "postgresql://taskflow:wrong@" + postgres_url.rpartition("@")[2]
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(address, connect_timeout=5)


def test_valkey_of_a_test_is_empty_and_keeps_a_log_of_writes(settings: Settings) -> None:
    with Redis.from_url(settings.redis_url.get_secret_value()) as client:
        assert client.dbsize() == 0
        assert client.config_get("appendonly") == {"appendonly": "yes"}
