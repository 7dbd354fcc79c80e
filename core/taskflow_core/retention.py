"""What is past its time is deleted, in short transactions that pass locked rows by, so that nobody waits for them.

Finished tasks are found without an index on their end: ids are UUIDv7, so those made before a moment are a range of the
primary key, and whatever ended before it was made before it. A task takes its attempts, events, logs and files along.
"""

import asyncio
import gzip
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, LiteralString
from uuid import UUID

from psycopg import AsyncConnection

from taskflow_core.identifiers import first_id

BATCH = 500
FETCHED = 20  # documents at a time
TOKENS_KEPT = timedelta(days=1)  # beyond the end of their family


@dataclass(frozen=True, slots=True)
class Keep:
    """For how long finished tasks are kept, by how they ended."""

    completed: timedelta
    failed: timedelta
    canceled: timedelta

    @property
    def least(self) -> timedelta:
        """The shortest of the three: nothing younger is past its time."""
        return min(self.completed, self.failed, self.canceled)


SLICE: LiteralString = "SELECT id FROM tasks WHERE id > %(after)s AND id < %(before)s ORDER BY id LIMIT %(batch)s"
# A task that is retried by hand at this moment is locked, and passed by.
PAST: LiteralString = """
SELECT id FROM tasks WHERE id = ANY(%(ids)s::uuid[]) AND finished_at < clock_timestamp() - CASE status
  WHEN 'COMPLETED' THEN %(completed)s::interval WHEN 'FAILED' THEN %(failed)s ELSE %(canceled)s END
ORDER BY id FOR UPDATE SKIP LOCKED
"""
DOCUMENTS: LiteralString = """
SELECT jsonb_build_object('task', to_jsonb(t), 'attempts', (
  SELECT COALESCE(jsonb_agg(to_jsonb(a) ORDER BY a.fence), '[]') FROM task_attempts a WHERE a.task_id = t.id))::text
FROM tasks t WHERE t.id = ANY(%(ids)s::uuid[]) ORDER BY t.id
"""
DELETE: LiteralString = """
WITH attempts AS (DELETE FROM task_attempts WHERE task_id = ANY(%(ids)s::uuid[])),
  events AS (DELETE FROM task_events WHERE task_id = ANY(%(ids)s::uuid[])),
  logs AS (DELETE FROM task_logs WHERE task_id = ANY(%(ids)s::uuid[]))
DELETE FROM tasks WHERE id = ANY(%(ids)s::uuid[])
"""
EXPIRED_KEYS: LiteralString = """
DELETE FROM idempotency_keys WHERE (owner_id, key) IN (
  SELECT owner_id, key FROM idempotency_keys WHERE expires_at < statement_timestamp()
  ORDER BY expires_at LIMIT %(batch)s FOR UPDATE SKIP LOCKED)
"""
ENDED_TOKENS: LiteralString = """
DELETE FROM refresh_tokens WHERE id IN (
  SELECT id FROM refresh_tokens WHERE family_expires_at < statement_timestamp() - %(kept)s::interval
  ORDER BY family_expires_at LIMIT %(batch)s FOR UPDATE SKIP LOCKED)
"""
OLD_SECURITY_EVENTS: LiteralString = """
DELETE FROM security_events WHERE id IN (
  SELECT id FROM security_events WHERE created_at < clock_timestamp() - %(kept)s::interval
  LIMIT %(batch)s FOR UPDATE SKIP LOCKED)
"""
ENDED_API_KEYS: LiteralString = """
DELETE FROM api_keys WHERE id IN (
  SELECT id FROM api_keys WHERE least(revoked_at, expires_at) < clock_timestamp() - %(kept)s::interval
  LIMIT %(batch)s FOR UPDATE SKIP LOCKED)
"""
OLD_DELIVERIES: LiteralString = """
DELETE FROM webhook_deliveries WHERE id IN (
  SELECT id FROM webhook_deliveries WHERE id < %(before)s AND next_attempt_at IS NULL
  ORDER BY id LIMIT %(batch)s FOR UPDATE SKIP LOCKED)
"""


async def next_slice(connection: AsyncConnection[Any], *, after: UUID, before: datetime) -> list[UUID]:
    """Return the ids of up to BATCH tasks that follow `after` and were made before that moment."""
    parameters = {"after": after, "before": first_id(before), "batch": BATCH}
    return [row[0] for row in await (await connection.execute(SLICE, parameters)).fetchall()]


async def delete_past(
    connection: AsyncConnection[Any], ids: Sequence[UUID], *, keep: Keep, archive: Path | None, day: str
) -> int:
    """Delete those of the tasks that are past their time and return how many.

    With `archive`, they are first written to `archive/<day>/<first id>.jsonl.gz`, a JSON object a line, and are on
    the disk before the deletion is committed: a crash in between leaves a task in both places, never in none.

    Raises:
        OSError: the archive cannot be written; nothing is deleted.
    """
    limits = {"ids": list(ids), "completed": keep.completed, "failed": keep.failed, "canceled": keep.canceled}
    async with connection.transaction():
        past = [row[0] for row in await (await connection.execute(PAST, limits)).fetchall()]
        if past and archive is not None:
            await _archive(connection, past, archive / day)
        if past:
            await connection.execute(DELETE, {"ids": past})
    return len(past)


async def delete_expired_keys(connection: AsyncConnection[Any]) -> int:
    """Delete up to BATCH idempotency keys that have expired and return how many."""
    return (await connection.execute(EXPIRED_KEYS, {"batch": BATCH})).rowcount


async def delete_ended_tokens(connection: AsyncConnection[Any]) -> int:
    """Delete up to BATCH refresh tokens whose family ended over a day ago and return how many.

    Until then a used token stays: it tells a thief by being used again.
    """
    return (await connection.execute(ENDED_TOKENS, {"batch": BATCH, "kept": TOKENS_KEPT})).rowcount


async def delete_old_security_events(connection: AsyncConnection[Any], *, kept: timedelta) -> int:
    """Delete up to BATCH security events that are older and return how many."""
    return (await connection.execute(OLD_SECURITY_EVENTS, {"batch": BATCH, "kept": kept})).rowcount


async def delete_ended_api_keys(connection: AsyncConnection[Any], *, kept: timedelta) -> int:
    """Delete up to BATCH API keys that expired or were revoked longer ago and return how many."""
    return (await connection.execute(ENDED_API_KEYS, {"batch": BATCH, "kept": kept})).rowcount


async def delete_old_deliveries(connection: AsyncConnection[Any], *, before: datetime) -> int:
    """Delete up to BATCH deliveries of webhooks made before that moment that nothing more comes of; return how many."""
    return (await connection.execute(OLD_DELIVERIES, {"batch": BATCH, "before": first_id(before)})).rowcount


async def _archive(connection: AsyncConnection[Any], ids: Sequence[UUID], folder: Path) -> None:
    """Write the tasks to a file that appears whole and on the disk, or not at all."""
    target = folder / f"{ids[0]}.jsonl.gz"
    part = target.with_name(target.name + ".part")
    with await asyncio.to_thread(_create, part) as file:
        with gzip.GzipFile(fileobj=file, mode="wb", filename="", mtime=0) as packed:
            async with connection.cursor("archive") as cursor:  # kept on the server: a batch may be large
                cursor.itersize = FETCHED
                await cursor.execute(DOCUMENTS, {"ids": list(ids)})
                async for (document,) in cursor:
                    packed.write(document.encode() + b"\n")
        await asyncio.to_thread(_publish, file, part, target)


def _create(part: Path) -> BinaryIO:
    part.parent.mkdir(exist_ok=True)
    return part.open("wb")


def _publish(file: BinaryIO, part: Path, target: Path) -> None:
    file.flush()
    os.fsync(file.fileno())
    part.replace(target)
    for folder in (target.parent, target.parent.parent):  # their entries are data too
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
