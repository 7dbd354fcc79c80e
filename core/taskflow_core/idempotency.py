"""Idempotency keys: the same key and request get the same answer for 24 hours (after Stripe's API).

A key is a row of the creating transaction, so that it and the task exist or neither, whatever dies. Who asks under a
key holds its advisory lock until then; a second request meanwhile waits for at most MAX_WAIT_MS.
"""

import hashlib
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson
from psycopg.errors import LockNotAvailable
from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from taskflow_core.actors import Actor
from taskflow_core.errors import FieldProblem, IdempotencyConflict, IdempotencyMismatch
from taskflow_core.models.tasks import IdempotencyKey

HEADER = "Idempotency-Key"
KEPT = timedelta(hours=24)
MAX_WAIT_MS = 1000

WAIT = text("SELECT set_config('lock_timeout', :bound, true)")
LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended(CAST(:owner_id AS text) || ' ' || :key, 0))")
# A key that has expired and was not deleted yet is as good as none.
CLAIM = text("""
INSERT INTO idempotency_keys AS held (owner_id, key, request_hash, expires_at)
VALUES (:owner_id, :key, :request_hash, clock_timestamp() + :kept)
ON CONFLICT (owner_id, key) DO UPDATE SET request_hash = excluded.request_hash, task_id = NULL, response = NULL,
  created_at = clock_timestamp(), expires_at = excluded.expires_at
  WHERE held.expires_at <= clock_timestamp()
RETURNING key
""")
KEEP = text("""
UPDATE idempotency_keys SET task_id = :task_id, response = CAST(:response AS jsonb)
WHERE owner_id = :owner_id AND key = :key
""")


def hash_of(operation: str, body: dict[str, Any]) -> bytes:
    """Return the sha256 of a request: of what it does and of its body as canonical JSON (keys sorted)."""
    canonical = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(operation.encode() + b"\n" + canonical).digest()


async def claim(session: AsyncSession, key: str, *, actor: Actor, request_hash: bytes) -> dict[str, Any] | None:
    """Take the key for this transaction and return None, or return the answer that was given under it.

    Raises:
        IdempotencyConflict: another request holds the key and has not been answered yet.
        IdempotencyMismatch: the key was used with another request.
    """
    await session.execute(WAIT, {"bound": f"{MAX_WAIT_MS}ms"})
    row = {"owner_id": actor.user_id, "key": key, "request_hash": request_hash, "kept": KEPT}
    try:
        await session.execute(LOCK, {"owner_id": str(actor.user_id), "key": key})
        taken = (await session.execute(CLAIM, row)).scalar_one_or_none()
    except OperationalError as error:
        if not isinstance(error.orig, LockNotAvailable):
            raise
        await session.rollback()
        raise in_flight() from None
    return None if taken is not None else await _stored(session, key, actor=actor, request_hash=request_hash)


async def keep(session: AsyncSession, key: str, *, actor: Actor, task_id: UUID | None, response: bytes) -> None:
    """Store the answer, as JSON text, under a key that this transaction has claimed; `task_id` if it made one."""
    row = {"owner_id": actor.user_id, "key": key, "task_id": task_id, "response": response.decode()}
    await session.execute(KEEP, row)


async def _stored(session: AsyncSession, key: str, *, actor: Actor, request_hash: bytes) -> dict[str, Any]:
    holder = select(IdempotencyKey).where(col(IdempotencyKey.owner_id) == actor.user_id, col(IdempotencyKey.key) == key)
    found = (await session.execute(holder)).scalar_one_or_none()
    if found is None or found.response is None:  # it expired and was deleted between the two statements
        raise in_flight()
    return replay(found.response, kept_hash=found.request_hash, request_hash=request_hash)


def replay(response: dict[str, Any], *, kept_hash: bytes, request_hash: bytes) -> dict[str, Any]:
    """Return the answer that is kept under a key, for a request of that hash.

    Raises:
        IdempotencyMismatch: it was given to another request.
    """
    if kept_hash != request_hash:
        message = "was used with another body in the last 24 hours; make a new key for a new request"
        raise IdempotencyMismatch("this Idempotency-Key belongs to another request", [FieldProblem(HEADER, message)])
    return response


def in_flight() -> IdempotencyConflict:
    """Return the error of a request whose key another one holds."""
    return IdempotencyConflict("a request with this Idempotency-Key is still being answered; send it again in a moment")
