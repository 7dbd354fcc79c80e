"""What is past its time goes, with all that belongs to it, and nobody waits for it."""

import gzip
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import AsyncConnection
from sqlalchemy import text

from children import Children
from fake_context import add_task, add_user
from taskflow_core import retention
from taskflow_core.database import Sessions, plain_url
from taskflow_core.identifiers import first_id, new_id, time_of
from taskflow_core.retention import Keep
from taskflow_core.settings import Settings
from waiting import eventually, eventually_async

DAY = timedelta(days=1)
KEEP = Keep(completed=30 * DAY, failed=90 * DAY, canceled=30 * DAY)
START = UUID(int=0)
BELONGINGS = ("task_attempts", "task_events", "task_logs", "task_files", "email_sends")


@pytest.fixture
async def connection(settings: Settings) -> AsyncIterator[AsyncConnection[Any]]:
    url = plain_url(settings.database_url)
    async with await AsyncConnection.connect(url, autocommit=True, options="-c statement_timeout=10000") as connection:
        yield connection


@pytest.fixture
async def owner(sessions: Sessions) -> UUID:
    return await add_user(sessions)


def now() -> datetime:
    return datetime.now(UTC)


async def ended(sessions: Sessions, owner: UUID, status: str, *, days: float, made_days: float | None = None) -> UUID:
    """Insert a task that ended so many days ago, with history, a file and a mail."""
    base = first_id(now() - (made_days or days) * DAY)
    task_id = UUID(int=base.int | (new_id().int & (2**80 - 1)))
    await add_task(sessions, owner, "ECHO", id=task_id, status=status, finished_at=now() - days * DAY)
    async with sessions() as session:
        for statement in (
            "INSERT INTO task_attempts (task_id, fence, attempt, worker_id, outcome, started_at) "
            "VALUES (:id, 1, 1, 'w', 'completed', now())",
            "INSERT INTO task_events (task_id, owner_id, kind, attempt) VALUES (:id, :id, 'task.created', 0)",
            "INSERT INTO task_logs (task_id, attempt, level, message) VALUES (:id, 1, 'info', 'hello')",
            "INSERT INTO task_files (task_id, name, seq, media_type, size, content) "
            "VALUES (:id, 'a', 0, 'text/plain', 1, 'x')",
            "INSERT INTO email_sends (task_id, message_id, recipients) VALUES (:id, 'm', '[]')",
        ):
            await session.execute(text(statement), {"id": task_id})
        await session.commit()
    return task_id


async def tasks_left(sessions: Sessions) -> set[UUID]:
    async with sessions() as session:
        return set((await session.execute(text("SELECT id FROM tasks"))).scalars())


async def sweep(connection: AsyncConnection[Any], *, archive: Path | None = None) -> int:
    ids = await retention.next_slice(connection, after=START, before=now() - KEEP.least)
    return await retention.delete_past(connection, ids, keep=KEEP, archive=archive, day="2026-01-02")


def files_of(folder: Path) -> list[Path]:
    """Return what the days of the archive hold."""
    return sorted(folder.glob("????-??-??/*"))


def archived(folder: Path) -> list[dict[str, Any]]:
    """Read every document of the archive, its files in their order."""
    documents = []
    for file in files_of(folder):
        with gzip.open(file, "rt") as lines:
            documents += [json.loads(line) for line in lines]
    return documents


async def test_each_status_is_kept_for_its_own_time(
    sessions: Sessions, owner: UUID, connection: AsyncConnection[Any]
) -> None:
    kept = {
        await ended(sessions, owner, "COMPLETED", days=29),
        await ended(sessions, owner, "COMPLETED", days=29, made_days=400),
        await ended(sessions, owner, "FAILED", days=89),
        await ended(sessions, owner, "CANCELED", days=29),
    }
    for status, days in (("COMPLETED", 31), ("FAILED", 91), ("CANCELED", 31)):
        await ended(sessions, owner, status, days=days)
    kept.add(await add_task(sessions, owner, "ECHO", id=first_id(now() - 500 * DAY)))
    assert await sweep(connection) == 3
    assert await tasks_left(sessions) == kept


async def test_a_task_takes_everything_along_that_belongs_to_it(
    sessions: Sessions, owner: UUID, connection: AsyncConnection[Any]
) -> None:
    kept = await ended(sessions, owner, "COMPLETED", days=1)
    await ended(sessions, owner, "COMPLETED", days=40)
    await sweep(connection)
    async with sessions() as session:
        for table in BELONGINGS:
            left = (await session.execute(text(f"SELECT task_id FROM {table}"))).scalars().all()  # noqa: S608 - names of ours
            assert left == [kept], table


async def test_a_task_that_somebody_holds_is_passed_by_without_waiting(
    sessions: Sessions, owner: UUID, connection: AsyncConnection[Any], settings: Settings
) -> None:
    held = await ended(sessions, owner, "FAILED", days=100)
    await ended(sessions, owner, "FAILED", days=100)
    with psycopg.connect(plain_url(settings.database_url)) as other:
        other.execute("SELECT 1 FROM tasks WHERE id = %s FOR UPDATE", [held])
        assert await sweep(connection) == 1
        assert await tasks_left(sessions) == {held}
    assert await sweep(connection) == 1


async def test_the_archive_holds_what_was_deleted(
    sessions: Sessions, owner: UUID, connection: AsyncConnection[Any], tmp_path: Path
) -> None:
    gone = sorted([await ended(sessions, owner, "COMPLETED", days=40) for _ in range(30)])
    assert await sweep(connection, archive=tmp_path) == 30
    documents = archived(tmp_path)
    assert [UUID(document["task"]["id"]) for document in documents] == gone
    assert documents[0]["task"]["status"] == "COMPLETED"
    assert [attempt["outcome"] for attempt in documents[0]["attempts"]] == ["completed"]
    assert [file.suffix for file in files_of(tmp_path)] == [".gz"]


async def test_nothing_is_deleted_while_the_archive_cannot_be_written(
    sessions: Sessions, owner: UUID, connection: AsyncConnection[Any], tmp_path: Path
) -> None:
    task_id = await ended(sessions, owner, "COMPLETED", days=40)
    (tmp_path / "2026-01-02").write_text("a file where a folder should be")
    with pytest.raises(OSError, match="2026-01-02"):
        await sweep(connection, archive=tmp_path)
    assert await tasks_left(sessions) == {task_id}
    (tmp_path / "2026-01-02").unlink()
    assert await sweep(connection, archive=tmp_path) == 1


async def test_a_deletion_that_is_not_committed_leaves_the_task_and_a_second_try_its_archive_once(
    sessions: Sessions, owner: UUID, connection: AsyncConnection[Any], tmp_path: Path, settings: Settings
) -> None:
    task_id = await ended(sessions, owner, "COMPLETED", days=40)
    async with await AsyncConnection.connect(plain_url(settings.database_url)) as dying:
        await sweep(dying, archive=tmp_path)
        await dying.rollback()
    assert len(archived(tmp_path)) == 1
    assert await tasks_left(sessions) == {task_id}
    assert await sweep(connection, archive=tmp_path) == 1
    assert len(archived(tmp_path)) == 1


async def test_expired_keys_and_ended_sessions_go(
    sessions: Sessions, owner: UUID, connection: AsyncConnection[Any]
) -> None:
    await connection.execute(
        "INSERT INTO idempotency_keys (owner_id, key, request_hash, expires_at) "
        "SELECT %s, n::text, '', now() + (n - 700) * interval '1 hour' FROM generate_series(1, 710) n",
        [owner],
    )
    assert await retention.delete_expired_keys(connection) == 500
    assert await retention.delete_expired_keys(connection) == 200
    assert await retention.delete_expired_keys(connection) == 0
    await connection.execute(
        "INSERT INTO refresh_tokens (id, family_id, user_id, token_hash, expires_at, family_expires_at) "
        "SELECT gen_random_uuid(), gen_random_uuid(), %s, sha256(n::text::bytea), now(), now() - n * interval '1 hour' "
        "FROM generate_series(1, 48) n",
        [owner],
    )
    assert await retention.delete_ended_tokens(connection) == 25


async def test_old_security_events_and_ended_api_keys_go_and_living_ones_stay(
    owner: UUID, connection: AsyncConnection[Any]
) -> None:
    await connection.execute(
        "INSERT INTO security_events (kind, user_id, created_at) "
        "SELECT 'login.failed', %s, now() - n * interval '1 day' FROM generate_series(1, 700) n",
        [owner],
    )
    deleted = [await retention.delete_old_security_events(connection, kept=180 * DAY) for _ in range(3)]
    assert deleted == [500, 21, 0]
    await connection.execute(
        "INSERT INTO api_keys (id, owner_id, name, hint, key_hash, scopes, expires_at, revoked_at) "
        "SELECT gen_random_uuid(), %s, name, 'tf_', sha256(name::bytea), '{tasks:read}', now() + ends, now() + revoked "
        "FROM (VALUES ('lives', interval '1 day', NULL::interval), ('expired lately', '-1 day', NULL), "
        "('expired', '-200 days', NULL), ('revoked', '1 day', '-181 days')) AS k (name, ends, revoked)",
        [owner],
    )
    assert await retention.delete_ended_api_keys(connection, kept=180 * DAY) == 2
    left = await (await connection.execute("SELECT name FROM api_keys ORDER BY name")).fetchall()
    assert left == [("expired lately",), ("lives",)]


async def test_old_deliveries_of_webhooks_go_unless_they_wait(owner: UUID, connection: AsyncConnection[Any]) -> None:
    hook = new_id()
    await connection.execute(
        "INSERT INTO webhook_endpoints (id, owner_id, url, secret, kinds) VALUES (%s, %s, 'https://x', '', '{}')",
        [hook, owner],
    )
    waits, new = first_id(now() - 40 * DAY), new_id()
    for delivery, due in ((UUID(int=waits.int + 1), None), (waits, now()), (new, None)):
        await connection.execute(
            "INSERT INTO webhook_deliveries (id, endpoint_id, kind, body, next_attempt_at) "
            "VALUES (%s, %s, 'x', '{}', %s)",
            [delivery, hook, due],
        )
    assert await retention.delete_old_deliveries(connection, before=now() - 30 * DAY) == 1
    left = await (await connection.execute("SELECT id FROM webhook_deliveries ORDER BY id")).fetchall()
    assert [row[0] for row in left] == [waits, new]


async def test_the_scheduler_deletes_what_is_old_in_batches_and_keeps_the_rest(
    sessions: Sessions, owner: UUID, connection: AsyncConnection[Any], nursery: Children, tmp_path: Path
) -> None:
    await connection.execute(
        "INSERT INTO tasks (id, owner_id, type, lane, payload, created_at, status, finished_at) "
        "SELECT (lpad(to_hex(n), 12, '0') || '70008000000000000000')::uuid, %s, 'ECHO', 'default', '{}', now(), "
        "'COMPLETED', now() - interval '3 days' FROM generate_series(1, 1300) n",
        [owner],
    )
    kept = await ended(sessions, owner, "FAILED", days=3)
    scheduler = nursery.scheduler(
        retain_completed_days="2", retain_failed_days="4", retain_canceled_days="1", archive_dir=str(tmp_path)
    )

    async def only_the_rest_is_left() -> bool:
        return await tasks_left(sessions) == {kept}

    await eventually_async(only_the_rest_is_left)
    eventually(lambda: scheduler.said("retention.deleted"))
    assert '"tasks":1300' in scheduler.log.read_text()
    assert len(archived(tmp_path)) == 1300
    assert len(files_of(tmp_path)) == 3
    assert scheduler.stop() == 0


def test_the_least_id_of_a_moment_stands_before_every_id_made_then() -> None:
    made = new_id()
    assert first_id(time_of(made)) <= made
    assert time_of(first_id(time_of(made))) == time_of(made)
    assert first_id(time_of(made) + timedelta(milliseconds=1)) > made
