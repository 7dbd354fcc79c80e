"""Refresh tokens: opaque, used once, in families (RFC 9700 section 4.14.2); only their sha256 is stored.

A login starts a family, which people know as a session. Its first row, the root, has the family's id and carries the
family's end: once the root is revoked no token of the family works, not even a child whose insertion was under way at
that moment. A child is the HMAC of its parent under a secret of the server, so that the answer to a lost response can
be given again without keeping it.
"""

import hashlib
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any, NamedTuple
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import tuple_row
from sqlalchemy import ColumnElement, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased
from sqlmodel import col

from taskflow_core import security_events
from taskflow_core.actors import Actor
from taskflow_core.errors import NotFound
from taskflow_core.identifiers import new_id
from taskflow_core.keyring import Keyring
from taskflow_core.models.users import RefreshToken, User
from taskflow_core.security_events import EventKind, Origin

PREFIX = "tfr_"
GRACE = timedelta(seconds=10)
MAX_SESSIONS = 100


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long a refresh token may lie unused, and how long its family lives in all, in seconds."""

    idle_s: int
    absolute_s: int


class Started(NamedTuple):
    """A new session and its first token."""

    session_id: UUID
    token: str


class Renewal(NamedTuple):
    """A user whose session goes on, and the family's living token."""

    user: User
    session_id: UUID
    token: str


class SessionState(NamedTuple):
    """A session that can go on: when it started, and when and from where its living token was given."""

    id: UUID
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    user_agent: str
    address: str


async def start(session: AsyncSession, user_id: UUID, *, lifetimes: Lifetimes, origin: Origin) -> Started:
    """Start a family and return its first token; of more than MAX_SESSIONS of a user, the oldest end."""
    token = PREFIX + secrets.token_urlsafe(32)
    family_id = new_id()
    living = select(col(RefreshToken.family_id)).where(col(RefreshToken.user_id) == user_id, *_alive())
    crowd = living.order_by(col(RefreshToken.family_id).desc()).offset(MAX_SESSIONS - 1)
    if too_many := (await session.execute(crowd)).scalars().all():
        await _end(session, col(RefreshToken.family_id).in_(too_many))
    end = func.clock_timestamp() + timedelta(seconds=lifetimes.absolute_s)
    await session.execute(
        insert(RefreshToken).values(
            id=family_id,
            family_id=family_id,
            user_id=user_id,
            token_hash=_digest(token),
            expires_at=func.least(end, func.clock_timestamp() + timedelta(seconds=lifetimes.idle_s)),
            family_expires_at=end,
            **_noted(origin),
        )
    )
    return Started(family_id, token)


async def rotate(
    session: AsyncSession, token: str, *, keyring: Keyring, lifetimes: Lifetimes, origin: Origin
) -> Renewal | None:
    """Use a token up and return its child; of concurrent calls one does, the others are given the same child.

    None means the token is refused. It may also mean that its family was revoked just now, because a token was used
    again or the account is disabled: commit in either case, before you answer.
    """
    parent = await _use(session, _digest(token))
    if parent is None:
        return await _use_again(session, token, keyring=keyring, origin=origin)
    user = await _active_user(session, parent.user_id)
    if user is None:
        await _end(session, col(RefreshToken.family_id) == parent.family_id)
        return None
    child = _child(keyring.mac("refresh-child", token.encode()))
    await session.execute(
        insert(RefreshToken).values(
            id=new_id(),
            family_id=parent.family_id,
            user_id=parent.user_id,
            parent_id=parent.id,
            token_hash=_digest(child),
            expires_at=func.least(
                parent.family_expires_at, func.clock_timestamp() + timedelta(seconds=lifetimes.idle_s)
            ),
            family_expires_at=parent.family_expires_at,
            **_noted(origin),
        )
    )
    return Renewal(user, parent.family_id, child)


async def revoke(session: AsyncSession, token: str, *, origin: Origin) -> None:
    """End the family of a token, living or used up; an unknown token changes nothing."""
    family = select(col(RefreshToken.family_id)).where(col(RefreshToken.token_hash) == _digest(token))
    family_id = (await session.execute(family)).scalar_one_or_none()
    if family_id is not None:
        for user_id in await _end(session, col(RefreshToken.family_id) == family_id):
            await _note_end(session, EventKind.SESSION_REVOKED, user_id, family_id, origin=origin)


async def revoke_session(session: AsyncSession, session_id: UUID, *, actor: Actor, origin: Origin) -> None:
    """End one of the actor's own sessions.

    Raises:
        NotFound: there is none, it has ended, or it is another user's.
    """
    own = (col(RefreshToken.family_id) == session_id, col(RefreshToken.user_id) == actor.user_id)
    alive = col(RefreshToken.family_expires_at) > func.clock_timestamp()
    if not await _end(session, *own, alive):
        raise NotFound(f"there is no session {session_id}")
    await _note_end(session, EventKind.SESSION_REVOKED, actor.user_id, session_id, origin=origin, by=actor.user_id)


async def revoke_all(session: AsyncSession, user_id: UUID) -> None:
    """End every session of a user. Hold the user's row, so that no login slips in: users.end_tokens does."""
    await _end(session, col(RefreshToken.user_id) == user_id)


async def living(connection: AsyncConnection[Any], session_ids: Sequence[UUID]) -> set[UUID]:
    """Return those of the sessions that nobody has ended."""
    async with connection.cursor(row_factory=tuple_row) as cursor:
        statement = "SELECT id FROM refresh_tokens WHERE id = ANY(%s::uuid[]) AND revoked_at IS NULL"
        await cursor.execute(statement, [list(session_ids)])
        return {row[0] for row in await cursor.fetchall()}


async def list_sessions(session: AsyncSession, *, actor: Actor) -> list[SessionState]:
    """Return the actor's sessions that can go on, the last used first."""
    root = aliased(RefreshToken)
    statement = (
        select(
            col(root.id),
            col(root.created_at),
            col(RefreshToken.created_at),
            _expiry(),
            col(RefreshToken.user_agent),
            col(RefreshToken.address),
        )
        .join(root, col(root.id) == col(RefreshToken.family_id))
        .where(col(RefreshToken.user_id) == actor.user_id, *_alive())
        .order_by(col(RefreshToken.id).desc())
        .limit(MAX_SESSIONS)
    )
    return [SessionState(*row) for row in await session.execute(statement)]


async def _use(session: AsyncSession, digest: bytes) -> RefreshToken | None:
    statement = (
        update(RefreshToken)
        .where(col(RefreshToken.token_hash) == digest, *_alive())
        .values(used_at=func.clock_timestamp())
        .returning(RefreshToken)
        .execution_options(synchronize_session=False)
    )
    return (await session.execute(statement)).scalar_one_or_none()


async def _use_again(session: AsyncSession, token: str, *, keyring: Keyring, origin: Origin) -> Renewal | None:
    """Answer a token that is not usable: with its living child within the grace, else with the end of its family."""
    recent = col(RefreshToken.used_at) > func.clock_timestamp() - GRACE
    used = select(col(RefreshToken.family_id), col(RefreshToken.user_id), recent).where(
        col(RefreshToken.token_hash) == _digest(token), col(RefreshToken.used_at).is_not(None)
    )
    parent = (await session.execute(used)).one_or_none()
    if parent is None:
        return None
    family_id, user_id, in_grace = parent
    if in_grace:
        children = [_child(mac) for mac in keyring.macs("refresh-child", token.encode())]
        user = await _active_user(session, user_id)  # first: whoever ends all sessions raises its version before
        child = await _living(session, children)
        if child is not None and user is not None:
            return Renewal(user, family_id, child)
    if await _end(session, col(RefreshToken.family_id) == family_id):
        await _note_end(session, EventKind.REFRESH_REUSED, user_id, family_id, origin=origin)
    return None


async def _living(session: AsyncSession, tokens: list[str]) -> str | None:
    by_digest = {_digest(token): token for token in tokens}
    statement = select(col(RefreshToken.token_hash)).where(col(RefreshToken.token_hash).in_(by_digest), *_alive())
    digest = (await session.execute(statement)).scalar_one_or_none()
    return None if digest is None else by_digest[digest]


async def _active_user(session: AsyncSession, user_id: UUID) -> User | None:
    statement = select(User).where(col(User.id) == user_id, col(User.disabled_at).is_(None))
    return (await session.execute(statement)).scalar_one_or_none()


async def _end(session: AsyncSession, *which: ColumnElement[bool]) -> list[UUID]:
    """Revoke families and return the user of each: the roots first, whose locks put competing ends in order."""
    statement = (
        update(RefreshToken)
        .where(*which, col(RefreshToken.revoked_at).is_(None))
        .values(revoked_at=func.clock_timestamp())
        .execution_options(synchronize_session=False)
    )
    roots = statement.where(col(RefreshToken.id) == col(RefreshToken.family_id)).returning(col(RefreshToken.user_id))
    ended = list((await session.execute(roots)).scalars())
    await session.execute(statement)
    return ended


async def _note_end(
    session: AsyncSession,
    kind: EventKind,
    user_id: UUID,
    session_id: UUID,
    *,
    origin: Origin,
    by: UUID | None = None,
) -> None:
    data = {"session_id": str(session_id)}
    await security_events.record(session, kind, origin=origin, user_id=user_id, actor_id=by, data=data)


def _noted(origin: Origin) -> dict[str, str]:
    cleaned = origin.cleaned()
    return {"user_agent": cleaned.user_agent, "address": cleaned.address}


@cache  # an alias of a table takes a millisecond to make
def _alive() -> tuple[ColumnElement[bool], ...]:
    root = aliased(RefreshToken)
    return (
        col(RefreshToken.used_at).is_(None),
        col(RefreshToken.revoked_at).is_(None),
        _expiry() > func.clock_timestamp(),
        select(root).where(col(root.id) == col(RefreshToken.family_id), col(root.revoked_at).is_(None)).exists(),
    )


def _expiry() -> ColumnElement[datetime]:
    return func.least(col(RefreshToken.expires_at), col(RefreshToken.family_expires_at))


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _child(mac: bytes) -> str:
    return PREFIX + urlsafe_b64encode(mac).rstrip(b"=").decode()
