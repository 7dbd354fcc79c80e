"""The audit: silent on every legal history, and each rule finds the damage that it is there for."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import LiteralString
from uuid import UUID

import psycopg
import pytest
from pydantic import SecretStr

from children import Client
from histories import fill
from taskflow_core import audit as rules
from taskflow_core.audit import CHECKS, COUNTERS, DEDUP, ORPHANS, Audit, audit
from taskflow_core.database import create_engine, create_sessions, plain_url
from taskflow_core.queue import DeliveryQueue, connect_redis
from taskflow_core.settings import Settings

HISTORY = "every_legal_history"
NAMES = {check.name for check in (*CHECKS, ORPHANS, DEDUP, COUNTERS)}


@pytest.fixture(scope="session")
async def ids(postgres_url: str, redis_url: str, template_database: str) -> dict[str, UUID]:
    """Make the database that each test's own is copied from; return its tasks by name."""
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {HISTORY} TEMPLATE {template_database}")
    url = postgres_url.rpartition("/")[0] + "/" + HISTORY
    settings = Settings(database_url=SecretStr(url), redis_url=SecretStr(redis_url))
    redis, engine = connect_redis(settings), create_engine(settings, service="tests")
    client = Client(create_sessions(engine), DeliveryQueue(redis))
    async with await psycopg.AsyncConnection.connect(plain_url(settings.database_url), autocommit=True) as connection:
        made = await fill(client, connection)
    await engine.dispose()
    await redis.aclose()
    return made


@pytest.fixture
def history(settings: Settings, postgres_url: str, ids: dict[str, UUID]) -> Iterator[psycopg.Connection]:
    """Replace the test's database by a copy of that one, and connect to it."""
    url = plain_url(settings.database_url)
    name = url.rpartition("/")[2]
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f"DROP DATABASE {name}")
        admin.execute(f"CREATE DATABASE {name} TEMPLATE {HISTORY}")
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


def look(settings: Settings) -> Audit:
    with psycopg.connect(plain_url(settings.database_url)) as connection:
        return audit(connection)


def broken(found: Audit) -> dict[str, list[UUID]]:
    return {finding.name: list(finding.examples) for finding in found.findings if finding.violations}


def test_every_legal_history_is_clean(settings: Settings, history: psycopg.Connection) -> None:
    found = look(settings)
    assert broken(found) == {}
    assert found.clean
    assert found.tasks == {"CANCELED": 3, "COMPLETED": 3, "FAILED": 3, "PENDING": 4, "RUNNING": 2}
    assert found.attempts["released"] == 4


def test_an_empty_database_is_clean(settings: Settings) -> None:
    found = look(settings)
    assert (found.clean, found.tasks) == (True, {})


def test_slices_of_any_size_find_the_same(
    settings: Settings, history: psycopg.Connection, ids: dict[str, UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    history.execute("DELETE FROM task_attempts WHERE outcome = 'completed'")
    whole = look(settings)
    for size in (1, 4, 15, 16):
        monkeypatch.setattr(rules, "SLICE", size)
        assert replace(look(settings), taken_at=whole.taken_at) == whole
    assert broken(whole)["every start has one end"] == sorted(ids[name] for name in ("completed", "by_hand", "odyssey"))


# The rule, the task it is to name, and what damages that task (the constraints are gone by then).
DAMAGE: list[tuple[str, str, LiteralString]] = [
    ("a task is waiting, running or final", "waiting", "UPDATE tasks SET status = 'PAUSED' WHERE id = %(id)s"),
    (
        "a task runs if and only if it has a lease",
        "running",
        "UPDATE tasks SET lease_expires_at = NULL WHERE id = %(id)s",
    ),
    (
        "a task runs if and only if it has a lease",
        "completed",
        "UPDATE tasks SET lease_expires_at = now() WHERE id = %(id)s",
    ),
    ("a task is final if and only if it has an end", "failed", "UPDATE tasks SET finished_at = NULL WHERE id = %(id)s"),
    (
        "a task is final if and only if it has an end",
        "waiting",
        "UPDATE tasks SET finished_at = now() WHERE id = %(id)s",
    ),
    (
        "a due task is on its way",
        "delayed",
        "UPDATE tasks SET run_at = now() - interval '61 seconds' WHERE id = %(id)s",
    ),
    ("a waiting task can be claimed", "waiting", "UPDATE tasks SET cancel_requested_at = now() WHERE id = %(id)s"),
    ("a waiting task can be claimed", "retrying", "UPDATE tasks SET max_attempts = 1 WHERE id = %(id)s"),
    (
        "an expired lease is ended",
        "running",
        "UPDATE tasks SET lease_expires_at = now() - interval '61 seconds' WHERE id = %(id)s",
    ),
    (
        "a running task is named by its worker's row",
        "running",
        "UPDATE workers SET held = array_remove(held, %(id)s)",
    ),
    (
        "a task completes once",
        "odyssey",
        "UPDATE task_attempts SET outcome = 'completed' WHERE task_id = %(id)s AND outcome = 'lost'",
    ),
    (
        "a task is COMPLETED by its last attempt, and no other has a completed one",
        "completed",
        "UPDATE task_attempts SET outcome = 'failed' WHERE task_id = %(id)s",
    ),
    (
        "a task is COMPLETED by its last attempt, and no other has a completed one",
        "failed",
        "UPDATE task_attempts SET outcome = 'completed' WHERE task_id = %(id)s",
    ),
    (
        "a task is COMPLETED by its last attempt, and no other has a completed one",
        "odyssey",
        "UPDATE task_attempts SET outcome = CASE outcome WHEN 'completed' THEN 'lost' WHEN 'lost' THEN 'completed' "
        "ELSE outcome END WHERE task_id = %(id)s",
    ),
    ("attempts are within their bound", "by_hand", "UPDATE tasks SET attempt = 3 WHERE id = %(id)s"),
    ("the attempt counter is what the history says", "odyssey", "UPDATE tasks SET attempt = 2 WHERE id = %(id)s"),
    ("the attempt counter is what the history says", "by_hand", "UPDATE tasks SET attempt = 2 WHERE id = %(id)s"),
    ("the attempt counter is what the history says", "running_again", "UPDATE tasks SET attempt = 0 WHERE id = %(id)s"),
    (
        "the attempt counter is what the history says",
        "odyssey",
        "UPDATE task_attempts SET outcome = 'retried' WHERE task_id = %(id)s AND outcome = 'snoozed'",
    ),
    ("every start has one end", "failed", "DELETE FROM task_attempts WHERE task_id = %(id)s"),
    (
        "every start has one end",
        "running",
        "INSERT INTO task_attempts (task_id, fence, attempt, worker_id, outcome, started_at) "
        "VALUES (%(id)s, 1, 1, 'w', 'lost', now())",
    ),
    ("the fence counts every change of hands", "odyssey", "UPDATE tasks SET fence = fence - 1 WHERE id = %(id)s"),
    (
        "a task's first event is its creation",
        "waiting",
        "DELETE FROM task_events WHERE task_id = %(id)s AND kind = 'task.created'",
    ),
    (
        "a task's first event is its creation",
        "waiting",
        "INSERT INTO task_events (task_id, owner_id, kind, attempt) SELECT id, owner_id, 'task.created', 0 FROM tasks "
        "WHERE id = %(id)s",
    ),
    (
        "every final status has its event, once",
        "twice_failed",
        "UPDATE task_events SET kind = 'task.retried' WHERE task_id = %(id)s AND kind = 'task.failed'",
    ),
    (
        "every final status has its event, once",
        "canceled",
        "INSERT INTO task_events (task_id, owner_id, kind, attempt) SELECT id, owner_id, 'task.canceled', 0 FROM tasks "
        "WHERE id = %(id)s",
    ),
    (
        "the last event says where the task is",
        "completed",
        "DELETE FROM task_events WHERE task_id = %(id)s AND kind = 'task.completed'",
    ),
    (
        "the last event says where the task is",
        "running",
        "DELETE FROM task_events WHERE task_id = %(id)s AND kind = 'task.started'",
    ),
    ("the version counts every event", "completed", "UPDATE tasks SET row_version = 2 WHERE id = %(id)s"),
    (
        "events belong to the task's owner",
        "failed",
        "UPDATE task_events SET owner_id = gen_random_uuid() WHERE task_id = %(id)s AND kind = 'task.failed'",
    ),
    (
        "FAILED says why, COMPLETED has nothing to explain",
        "failed",
        "UPDATE tasks SET error = NULL WHERE id = %(id)s",
    ),
    (
        "FAILED says why, COMPLETED has nothing to explain",
        "completed",
        "UPDATE tasks SET error = '{}' WHERE id = %(id)s",
    ),
    ("history belongs to a task", "canceled", "DELETE FROM tasks WHERE id = %(id)s"),
    (
        "a deduplication key is held by one unfinished task",
        "running",
        "UPDATE tasks SET dedup_key = 'k' WHERE id = %(id)s",
    ),
    (
        "the counts agree",
        "",
        "INSERT INTO task_events (task_id, owner_id, kind, attempt) "
        "SELECT id, owner_id, 'task.completed', 1 FROM tasks WHERE status = 'COMPLETED' LIMIT 1",
    ),
]


@pytest.fixture
def unprotected(history: psycopg.Connection) -> psycopg.Connection:
    """Take away what keeps the tables in order."""
    for name in ("status_check", "running_has_lease", "final_is_finished", "attempts_bounded"):
        history.execute(f"ALTER TABLE tasks DROP CONSTRAINT tasks_{name}")
    history.execute("DROP INDEX tasks_dedup")
    return history


@pytest.mark.parametrize(("rule", "name", "statement"), DAMAGE)
def test_damage_is_found_and_the_task_named(
    rule: str,
    name: str,
    statement: LiteralString,
    settings: Settings,
    ids: dict[str, UUID],
    unprotected: psycopg.Connection,
) -> None:
    damaged = ids.get(name)
    assert unprotected.execute(statement, {"id": damaged} if damaged else None).rowcount > 0
    found = broken(look(settings))
    assert rule in found
    assert found[rule] == ([damaged] if damaged else [])


def test_every_rule_has_damage_that_it_finds() -> None:
    assert {rule for rule, _, _ in DAMAGE} == NAMES


def run(*arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "taskflow_cli", "audit", *arguments]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_says_clean_broken_or_unreachable_by_its_status(
    settings: Settings, history: psycopg.Connection, ids: dict[str, UUID], env: dict[str, str]
) -> None:
    done = run(**env)
    assert (done.returncode, done.stderr) == (0, "")
    assert "tasks     15: CANCELED 3, COMPLETED 3" in done.stdout
    assert f"All {len(NAMES)} rules hold." in done.stdout
    history.execute("UPDATE tasks SET row_version = 0 WHERE status = 'FAILED'")
    named = settings.database_url.get_secret_value()
    done = run("--database-url", named)
    assert done.returncode == 1
    assert f"        3 the version counts every event\n{'':>12}(a change without" in done.stdout
    assert str(ids["lost"]) in done.stdout
    document = json.loads(run("--json", **env).stdout)
    assert document["clean"] is False
    assert {check["name"]: check["violations"] for check in document["checks"] if check["violations"]} == {
        "the version counts every event": 3
    }


def test_a_write_would_be_refused(
    settings: Settings, history: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "NEXT", "DELETE FROM tasks WHERE id > %(after)s AND %(slice)s > 0 RETURNING id")
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        look(settings)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://u:secret@127.0.0.1:1/db", "the database cannot be read"),
        ("postgresql://u:sec%zzret@127.0.0.1:1/db", "the database's address cannot be read"),
    ],
)
def test_a_database_that_is_away_or_misspelled_is_said_without_its_password(url: str, words: str) -> None:
    done = run(TASKFLOW_DATABASE_URL=url)
    assert done.returncode == 2
    assert words in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr


def test_another_database_is_refused(postgres_url: str) -> None:
    done = run("--database-url", postgres_url)
    assert done.returncode == 2
    assert "the database holds other tables" in done.stderr


def test_no_database_named_is_said(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "taskflow_cli", "audit"]
    done = subprocess.run(command, env={}, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "no database is named" in done.stderr) == (2, True)
