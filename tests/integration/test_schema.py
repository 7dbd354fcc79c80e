"""The schema on a real PostgreSQL: up, down, alike to the models, and each CHECK refuses what it should."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg import sql
from psycopg.types.json import Jsonb
from pydantic import SecretStr
from sqlmodel import SQLModel

from taskflow_core import revisions, schema
from taskflow_core.database import plain_url
from taskflow_core.models import access, effects, runtime, tasks, users
from taskflow_core.settings import Settings
from waiting import eventually

MODELS = (access, effects, runtime, tasks, users)  # importing them fills the metadata
ID, TIME, DIGEST = uuid4(), "2026-11-24T12:00:00Z", b"d" * 32
FINISHED = {"status": "COMPLETED", "finished_at": TIME}
RUNNING = {"status": "RUNNING", "lease_expires_at": TIME}

# For each table one row that is accepted; the foreign rows it needs are inserted first.
ROWS: dict[str, dict[str, Any]] = {
    "users": {"id": ID, "email": "a@example.org", "password_hash": "x"},
    "refresh_tokens": {
        "id": ID,
        "family_id": ID,
        "user_id": ID,
        "token_hash": DIGEST,
        "expires_at": TIME,
        "family_expires_at": TIME,
    },
    "api_keys": {
        "id": ID,
        "owner_id": ID,
        "name": "ci",
        "hint": "tf_abcd",
        "key_hash": DIGEST,
        "scopes": ["tasks:read"],
        "expires_at": TIME,
    },
    "tasks": {"id": ID, "owner_id": ID, "type": "EMAIL", "lane": "default", "payload": Jsonb({}), "created_at": TIME},
    "task_attempts": {
        "task_id": ID,
        "fence": 1,
        "attempt": 1,
        "worker_id": "w",
        "outcome": "completed",
        "started_at": TIME,
    },
    "idempotency_keys": {"owner_id": ID, "key": "k", "request_hash": DIGEST, "expires_at": TIME},
    "workers": {"id": "w", "name": "w", "hostname": "h", "pid": 1, "queues": ["default"], "slots": 1, "version": "1"},
    "queues": {"name": "default"},
    "schedules": {"id": ID, "owner_id": ID, "name": "s", "cron": "* * * * *", "template": Jsonb({})},
    "webhook_endpoints": {"id": ID, "owner_id": ID, "url": "https://example.org", "secret": b"s", "kinds": ["x"]},
    "task_files": {"task_id": ID, "name": "f", "seq": 0, "media_type": "text/csv", "size": 0, "content": b""},
    "synced_records": {
        "owner_id": ID,
        "collection": "c",
        "key": "k",
        "data": Jsonb({}),
        "digest": DIGEST,
        "task_id": ID,
    },
}

# What a CHECK refuses: its name, the table, and the values that break it.
REFUSED: list[tuple[str, str, dict[str, Any]]] = [
    ("users_email_check", "users", {"email": "A@example.org"}),
    ("users_email_check", "users", {"email": "a" * 321}),
    ("users_role_check", "users", {"role": "ROOT"}),
    ("refresh_tokens_token_hash_check", "refresh_tokens", {"token_hash": b"short"}),
    ("tasks_type_check", "tasks", {"type": ""}),
    ("tasks_type_check", "tasks", {"type": "T" * 65}),
    ("tasks_title_check", "tasks", {"title": "t" * 201}),
    ("tasks_queue_check", "tasks", {"queue": "Default"}),
    ("tasks_queue_check", "tasks", {"queue": "q" * 65}),
    ("tasks_priority_check", "tasks", {"priority": -101}),
    ("tasks_priority_check", "tasks", {"priority": 101}),
    ("tasks_status_check", "tasks", {"status": "DONE"}),
    ("tasks_tags_check", "tasks", {"tags": ["t"] * 21}),
    ("tasks_max_attempts_check", "tasks", {"max_attempts": 0}),
    ("tasks_max_attempts_check", "tasks", {"max_attempts": 101}),
    ("tasks_timeout_s_check", "tasks", {"timeout_s": 0}),
    ("tasks_timeout_s_check", "tasks", {"timeout_s": 86_401}),
    ("tasks_dedup_key_check", "tasks", {"dedup_key": ""}),
    ("tasks_dedup_key_check", "tasks", {"dedup_key": "k" * 256}),
    ("tasks_running_has_lease", "tasks", {"status": "RUNNING"}),
    ("tasks_running_has_lease", "tasks", {"lease_expires_at": TIME}),
    ("tasks_final_is_finished", "tasks", {"status": "COMPLETED"}),
    ("tasks_final_is_finished", "tasks", {"status": "FAILED"}),
    ("tasks_final_is_finished", "tasks", {"status": "CANCELED"}),
    ("tasks_final_is_finished", "tasks", {"finished_at": TIME}),
    ("tasks_final_is_finished", "tasks", {**RUNNING, "finished_at": TIME}),
    ("tasks_attempts_bounded", "tasks", {"attempt": 4}),
    ("tasks_attempts_bounded", "tasks", {"attempt": -1}),
    ("tasks_payload_bounded", "tasks", {"payload": Jsonb({"text": "x" * 1_048_577})}),
    ("task_attempts_outcome_check", "task_attempts", {"outcome": "done"}),
    ("api_keys_name_check", "api_keys", {"name": ""}),
    ("api_keys_key_hash_check", "api_keys", {"key_hash": b"short"}),
    ("idempotency_keys_key_check", "idempotency_keys", {"key": ""}),
    ("idempotency_keys_key_check", "idempotency_keys", {"key": "k" * 256}),
    ("workers_slots_check", "workers", {"slots": 0}),
    ("workers_state_check", "workers", {"state": "asleep"}),
    ("queues_name_check", "queues", {"name": ".hidden"}),
    ("schedules_name_check", "schedules", {"name": ""}),
    ("schedules_misfire_check", "schedules", {"misfire": "explode"}),
    ("webhook_endpoints_url_check", "webhook_endpoints", {"url": "h" * 2049}),
    ("task_files_name_check", "task_files", {"name": ""}),
    ("task_files_seq_check", "task_files", {"seq": -1}),
    ("task_files_size_check", "task_files", {"size": -1}),
    ("synced_records_collection_check", "synced_records", {"collection": "c" * 101}),
    ("synced_records_key_check", "synced_records", {"key": ""}),
]


# Sessions of this database that wait for an advisory lock.
WAITING = """
SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
 WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()
"""


def connect(settings: Settings) -> psycopg.Connection:
    return psycopg.connect(plain_url(settings.database_url), autocommit=True, connect_timeout=10)


@pytest.fixture
def empty(settings: Settings) -> Settings:
    """Take everything out of the test's database."""
    with connect(settings) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return settings


@pytest.fixture(scope="session")
def checked(postgres_url: str, template_database: str) -> Iterator[psycopg.Connection]:
    """Open one migrated database for all rows that are tried; nothing is committed there."""
    name = sql.Identifier(f"checks_{uuid4().hex[:12]}")
    with psycopg.connect(postgres_url, autocommit=True, connect_timeout=10) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(name, sql.Identifier(template_database)))
        address = postgres_url.rpartition("/")[0] + "/" + name.as_string().strip('"')
        with psycopg.connect(address, connect_timeout=10) as connection:
            yield connection
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def table_names(settings: Settings) -> set[str]:
    with connect(settings) as connection:
        rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    return {name for (name,) in rows}


def insert(connection: psycopg.Connection, table: str, row: dict[str, Any]) -> None:
    statement = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
        sql.Identifier(table),
        sql.SQL(", ").join(map(sql.Identifier, row)),
        sql.SQL(", ").join(sql.Placeholder() * len(row)),
    )
    connection.execute(statement, list(row.values()))


def insert_what_it_hangs_on(connection: psycopg.Connection, table: str) -> None:
    for parent in ("users", "tasks"):
        if table != parent:
            insert(connection, parent, ROWS[parent])


def test_the_schema_goes_up_from_nothing_down_to_nothing_and_up_again(empty: Settings) -> None:
    assert schema.current(empty) is None
    schema.migrate(empty)
    assert schema.current(empty) == schema.head()
    assert table_names(empty) == {"alembic_version", *SQLModel.metadata.tables}
    schema.migrate(empty, "base")
    assert schema.current(empty) is None
    assert table_names(empty) == {"alembic_version"}
    schema.migrate(empty)
    assert schema.current(empty) == schema.head()


def test_a_database_of_the_first_version_is_brought_up_with_its_rows(empty: Settings) -> None:
    schema.migrate(empty, "0001")
    with connect(empty) as connection:
        insert(connection, "users", ROWS["users"])
    schema.migrate(empty)
    with connect(empty) as connection:
        assert connection.execute("SELECT count(*) FROM users").fetchone() == (1,)
    assert schema.current(empty) == schema.head()


def test_the_revisions_that_the_code_names_are_those_of_the_scripts() -> None:
    walked = ScriptDirectory(str(revisions.scripts())).walk_revisions()
    assert revisions.known() == [script.revision for script in walked]


def test_migrating_a_database_that_is_up_to_date_changes_nothing(settings: Settings) -> None:
    before = table_names(settings)
    schema.migrate(settings)
    assert (schema.current(settings), table_names(settings)) == (schema.head(), before)


def test_the_migrated_database_is_what_the_models_say(settings: Settings) -> None:
    engine = sqlalchemy.create_engine(settings.database_url.get_secret_value(), poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, SQLModel.metadata) == []


@pytest.mark.parametrize("table", ROWS)
def test_the_row_that_the_checks_are_tried_with_is_accepted(table: str, checked: psycopg.Connection) -> None:
    with checked.transaction(force_rollback=True):
        insert_what_it_hangs_on(checked, table)
        insert(checked, table, ROWS[table])


@pytest.mark.parametrize(
    "values", [RUNNING, FINISHED, {"payload": Jsonb({"text": "x" * 262_144})}], ids=["running", "finished", "large"]
)
def test_a_task_in_another_legal_state_is_accepted(values: dict[str, Any], checked: psycopg.Connection) -> None:
    with checked.transaction(force_rollback=True):
        insert(checked, "tasks", ROWS["tasks"] | values)


@pytest.mark.parametrize(("constraint", "table", "values"), REFUSED)
def test_a_check_refuses_what_it_should(
    constraint: str, table: str, values: dict[str, Any], checked: psycopg.Connection
) -> None:
    with checked.transaction(force_rollback=True):
        insert_what_it_hangs_on(checked, table)
        with pytest.raises(psycopg.errors.CheckViolation) as refused, checked.transaction():
            insert(checked, table, ROWS[table] | values)
    assert refused.value.diag.constraint_name == constraint


def test_every_check_of_the_schema_is_tried(checked: psycopg.Connection) -> None:
    query = "SELECT conname FROM pg_constraint WHERE contype = 'c' AND connamespace = 'public'::regnamespace"
    with checked.transaction(force_rollback=True):
        names = {name for (name,) in checked.execute(query).fetchall()}
    assert names == {constraint for constraint, _, _ in REFUSED}


def test_one_open_task_holds_a_dedup_key_and_frees_it_when_it_ends(checked: psycopg.Connection) -> None:
    row = ROWS["tasks"] | {"dedup_key": "k"}
    with checked.transaction(force_rollback=True):
        insert(checked, "tasks", row | FINISHED)
        insert(checked, "tasks", row | {"id": uuid4()})
        with pytest.raises(psycopg.errors.UniqueViolation) as refused, checked.transaction():
            insert(checked, "tasks", row | {"id": uuid4()})
    assert refused.value.diag.constraint_name == "tasks_dedup"


def test_two_processes_that_migrate_at_once_take_turns_and_both_succeed(empty: Settings, env: dict[str, str]) -> None:
    program = "from taskflow_core import schema, settings; schema.migrate(settings.load(settings.Settings))"
    with connect(empty) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", [schema.LOCK])
        both = [
            subprocess.Popen([sys.executable, "-c", program], env=env, stderr=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        try:
            eventually(lambda: connection.execute(WAITING).fetchone() == (2,), timeout=60)
            connection.execute("SELECT pg_advisory_unlock(%s)", [schema.LOCK])
            ended = [(process.communicate(timeout=60)[1], process.returncode) for process in both]
        finally:
            for process in both:
                process.kill()
                process.wait(timeout=10)
    assert ended == [("", 0), ("", 0)]
    assert schema.current(empty) == schema.head()


def test_a_migration_gives_up_when_another_holds_the_lock_too_long(
    empty: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "LOCK_TIMEOUT_S", 1)
    with connect(empty) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", [schema.LOCK])
        with pytest.raises(sqlalchemy.exc.OperationalError, match="lock timeout"):
            schema.migrate(empty)
    assert schema.current(empty) is None


@pytest.mark.parametrize("target", ["head", "base"])
def test_a_database_of_a_newer_version_is_refused_and_left_alone(target: str, settings: Settings) -> None:
    before = table_names(settings)
    with connect(settings) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'from_the_future'")
    with pytest.raises(schema.UnknownRevision, match=rf"revision from_the_future, .* newest is {schema.head()}"):
        schema.migrate(settings, target)
    assert (schema.current(settings), table_names(settings)) == ("from_the_future", before)


def test_a_database_that_is_away_is_an_outage_with_a_deadline(settings: Settings) -> None:
    nowhere = settings.model_copy(
        update={"database_url": SecretStr("postgresql+psycopg://u:p@127.0.0.1:1/db"), "database_timeout_s": 2.0}
    )
    with pytest.raises(sqlalchemy.exc.OperationalError, match=r"127\.0\.0\.1"):
        schema.migrate(nowhere)
