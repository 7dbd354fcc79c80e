"""Use-cases of API keys, for programs: create, list, revoke, find. None commits; the caller does.

A key is `tf_<12 characters that name it>_<256 random bits>`. Only its sha256 is stored: that is enough for a secret
which nobody can guess, and looking it up needs no comparison whose time could tell something.
"""

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import tuple_row
from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from taskflow_core import security_events, users
from taskflow_core.actors import Actor
from taskflow_core.clock import utc_now
from taskflow_core.errors import FieldProblem, Invalid, NotFound, TooMany
from taskflow_core.identifiers import new_id
from taskflow_core.models.access import ApiKey
from taskflow_core.models.columns import Json
from taskflow_core.models.users import Role, User
from taskflow_core.security_events import EventKind, Origin

PREFIX = "tf_"
FORM = re.compile(r"tf_[0-9a-f]{12}_[A-Za-z0-9_-]{43}")
MAX_PER_OWNER = 50
DEFAULT_LIFE = timedelta(days=90)
MAX_LIFE = timedelta(days=366)
USE_NOTED_EVERY = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """A request for a key; without `expires_at` it lives for DEFAULT_LIFE."""

    name: str
    scopes: list[str]
    expires_at: datetime | None


class FoundKey(NamedTuple):
    """A key that works: its owner's account as it stands, and what the key may be used for."""

    key_id: UUID
    owner: Actor
    token_version: int
    scopes: frozenset[str]
    expires_at: datetime


async def create(session: AsyncSession, new: NewKey, *, actor: Actor, origin: Origin) -> tuple[ApiKey, str]:
    """Insert a key and return it with its text, which cannot be shown again.

    Raises:
        Invalid: it would expire in the past, or later than after MAX_LIFE.
        TooMany: the owner has MAX_PER_OWNER keys that are not revoked.
        Unauthenticated: the account is disabled.
    """
    expires_at = _end_of(new)
    await users.lock_active(session, actor.user_id)  # of two calls at once, the second counts the key of the first
    mine = select(func.count()).select_from(ApiKey).where(*_of(actor.user_id))
    if (await session.execute(mine)).scalar_one() >= MAX_PER_OWNER:
        raise TooMany(f"you have {MAX_PER_OWNER} API keys; delete one that you do not need", retry_after_s=60)
    hint = PREFIX + secrets.token_hex(6)
    token = f"{hint}_{secrets.token_urlsafe(32)}"
    key = ApiKey(
        id=new_id(),
        owner_id=actor.user_id,
        name=new.name,
        hint=hint,
        key_hash=digest(token),
        scopes=new.scopes,
        expires_at=expires_at,
    )
    session.add(key)
    await session.flush()
    await session.refresh(key)
    data: Json = {"key_id": str(key.id), "scopes": new.scopes}
    await _record(session, EventKind.KEY_CREATED, actor.user_id, origin=origin, data=data)
    return key, token


async def list_own(session: AsyncSession, *, actor: Actor) -> list[ApiKey]:
    """Return the actor's keys that are not revoked, expired ones included, newest first."""
    statement = select(ApiKey).where(*_of(actor.user_id)).order_by(col(ApiKey.id).desc()).limit(MAX_PER_OWNER)
    return list((await session.execute(statement)).scalars())


async def revoke(session: AsyncSession, key_id: UUID, *, actor: Actor, origin: Origin) -> bytes:
    """Revoke a key of the actor's own and return its hash.

    Raises:
        NotFound: there is none, it was revoked before, or it is another owner's.
    """
    hashes = await _revoke(session, *_of(actor.user_id), col(ApiKey.id) == key_id)
    if not hashes:
        raise NotFound(f"there is no API key {key_id}")
    await _record(session, EventKind.KEY_REVOKED, actor.user_id, origin=origin, data={"key_id": str(key_id)})
    return hashes[0]


async def revoke_all(session: AsyncSession, owner_id: UUID) -> list[bytes]:
    """Revoke every key of an account and return their hashes."""
    return await _revoke(session, *_of(owner_id))


async def find(session: AsyncSession, key_hash: bytes) -> FoundKey | None:
    """Return the key of that hash if it works: not revoked, not expired, its owner not disabled.

    Notes its use, at most once in USE_NOTED_EVERY: commit.
    """
    unnoted = or_(
        col(ApiKey.last_used_at).is_(None), col(ApiKey.last_used_at) < func.clock_timestamp() - USE_NOTED_EVERY
    )
    statement = (
        select(ApiKey, col(User.role), col(User.token_version), unnoted)
        .join(User, col(User.id) == col(ApiKey.owner_id))
        .where(
            col(ApiKey.key_hash) == key_hash,
            col(ApiKey.revoked_at).is_(None),
            col(ApiKey.expires_at) > func.clock_timestamp(),
            col(User.disabled_at).is_(None),
        )
    )
    row = (await session.execute(statement)).one_or_none()
    if row is None:
        return None
    key, role, token_version, is_unnoted = row
    if is_unnoted:
        used = update(ApiKey).where(col(ApiKey.id) == key.id, unnoted).values(last_used_at=func.clock_timestamp())
        await session.execute(used.execution_options(synchronize_session=False))
    return FoundKey(key.id, Actor(key.owner_id, Role(role)), token_version, frozenset(key.scopes), key.expires_at)


async def living(connection: AsyncConnection[Any], key_ids: Sequence[UUID]) -> set[UUID]:
    """Return those of the keys that are neither revoked nor expired."""
    async with connection.cursor(row_factory=tuple_row) as cursor:
        statement = "SELECT id FROM api_keys WHERE id = ANY(%s::uuid[]) AND revoked_at IS NULL AND expires_at > now()"
        await cursor.execute(statement, [list(key_ids)])
        return {row[0] for row in await cursor.fetchall()}


def digest(token: str) -> bytes:
    """Return what is stored of a key."""
    return hashlib.sha256(token.encode()).digest()


def _end_of(new: NewKey) -> datetime:
    now = utc_now()
    if new.expires_at is None:
        return now + DEFAULT_LIFE
    if not now < new.expires_at <= now + MAX_LIFE:
        message = f"must lie ahead, by at most {MAX_LIFE.days} days"
        raise Invalid("the key cannot expire then", [FieldProblem("expires_at", message)])
    return new.expires_at


async def _revoke(session: AsyncSession, *which: ColumnElement[bool]) -> list[bytes]:
    statement = (
        update(ApiKey)
        .where(*which)
        .values(revoked_at=func.clock_timestamp())
        .returning(col(ApiKey.key_hash))
        .execution_options(synchronize_session=False)
    )
    return list((await session.execute(statement)).scalars())


def _of(owner_id: UUID) -> list[ColumnElement[bool]]:
    return [col(ApiKey.owner_id) == owner_id, col(ApiKey.revoked_at).is_(None)]


async def _record(session: AsyncSession, kind: EventKind, user_id: UUID, *, origin: Origin, data: Json) -> None:
    await security_events.record(session, kind, origin=origin, user_id=user_id, actor_id=user_id, data=data)
