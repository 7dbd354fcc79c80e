"""Refresh tokens: opaque, used once, in families (RFC 9700 section 4.14.2); only their sha256 is stored.

A login starts a family; its first row, the root, has the family's id and carries the family's end: once the root is
revoked no token of the family works, not even a child whose insertion was under way at that moment. A child is the HMAC
of its parent under a secret of the server, so that the answer to a lost response can be given again without keeping it.
"""

import hashlib
import secrets
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased
from sqlmodel import col

from taskflow_core.identifiers import new_id
from taskflow_core.keyring import Keyring
from taskflow_core.models.users import RefreshToken, User

PREFIX = "tfr_"
GRACE = timedelta(seconds=10)
MAX_NOTE_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long a refresh token may lie unused, and how long its family lives in all, in seconds."""

    idle_s: int
    absolute_s: int


class Renewal(NamedTuple):
    """A user whose session goes on, and the family's living token."""

    user: User
    token: str


async def start(session: AsyncSession, user_id: UUID, *, lifetimes: Lifetimes, user_agent: str, address: str) -> str:
    """Start a family and return its first token."""
    token = PREFIX + secrets.token_urlsafe(32)
    family_id = new_id()
    end = func.clock_timestamp() + timedelta(seconds=lifetimes.absolute_s)
    await session.execute(
        insert(RefreshToken).values(
            id=family_id,
            family_id=family_id,
            user_id=user_id,
            token_hash=_digest(token),
            user_agent=user_agent.replace("\0", "")[:MAX_NOTE_CHARACTERS],
            address=address,
            expires_at=func.least(end, func.clock_timestamp() + timedelta(seconds=lifetimes.idle_s)),
            family_expires_at=end,
        )
    )
    return token


async def rotate(session: AsyncSession, token: str, *, keyring: Keyring, lifetimes: Lifetimes) -> Renewal | None:
    """Use a token up and return its child; of concurrent calls one does, the others are given the same child.

    None means the token is refused. It may also mean that its family was revoked just now, because a token was used
    again or the account is disabled: commit in either case, before you answer.
    """
    parent = await _use(session, _digest(token))
    if parent is None:
        return await _use_again(session, token, keyring=keyring)
    user = await _active_user(session, parent.user_id)
    if user is None:
        await _revoke_family(session, parent.family_id)
        return None
    child = _child(keyring.mac("refresh-child", token.encode()))
    await session.execute(
        insert(RefreshToken).values(
            id=new_id(),
            family_id=parent.family_id,
            user_id=parent.user_id,
            parent_id=parent.id,
            token_hash=_digest(child),
            user_agent=parent.user_agent,
            address=parent.address,
            expires_at=func.least(
                parent.family_expires_at, func.clock_timestamp() + timedelta(seconds=lifetimes.idle_s)
            ),
            family_expires_at=parent.family_expires_at,
        )
    )
    return Renewal(user, child)


async def revoke(session: AsyncSession, token: str) -> None:
    """End the family of a token, living or used up; an unknown token changes nothing."""
    family = select(col(RefreshToken.family_id)).where(col(RefreshToken.token_hash) == _digest(token))
    family_id = (await session.execute(family)).scalar_one_or_none()
    if family_id is not None:
        await _revoke_family(session, family_id)


async def _use(session: AsyncSession, digest: bytes) -> RefreshToken | None:
    statement = (
        update(RefreshToken)
        .where(col(RefreshToken.token_hash) == digest, *_alive())
        .values(used_at=func.clock_timestamp())
        .returning(RefreshToken)
        .execution_options(synchronize_session=False)
    )
    return (await session.execute(statement)).scalar_one_or_none()


async def _use_again(session: AsyncSession, token: str, *, keyring: Keyring) -> Renewal | None:
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
        child = await _living(session, children)
        user = await _active_user(session, user_id)
        if child is not None and user is not None:
            return Renewal(user, child)
    await _revoke_family(session, family_id)
    return None


async def _living(session: AsyncSession, tokens: list[str]) -> str | None:
    by_digest = {_digest(token): token for token in tokens}
    statement = select(col(RefreshToken.token_hash)).where(col(RefreshToken.token_hash).in_(by_digest), *_alive())
    digest = (await session.execute(statement)).scalar_one_or_none()
    return None if digest is None else by_digest[digest]


async def _active_user(session: AsyncSession, user_id: UUID) -> User | None:
    statement = select(User).where(col(User.id) == user_id, col(User.disabled_at).is_(None))
    return (await session.execute(statement)).scalar_one_or_none()


async def _revoke_family(session: AsyncSession, family_id: UUID) -> None:
    await session.execute(
        update(RefreshToken)
        .where(col(RefreshToken.family_id) == family_id, col(RefreshToken.revoked_at).is_(None))
        .values(revoked_at=func.clock_timestamp())
        .execution_options(synchronize_session=False)
    )


def _alive() -> list[ColumnElement[bool]]:
    root = aliased(RefreshToken)
    return [
        col(RefreshToken.used_at).is_(None),
        col(RefreshToken.revoked_at).is_(None),
        func.least(col(RefreshToken.expires_at), col(RefreshToken.family_expires_at)) > func.clock_timestamp(),
        select(root).where(col(root.id) == col(RefreshToken.family_id), col(root.revoked_at).is_(None)).exists(),
    ]


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _child(mac: bytes) -> str:
    return PREFIX + urlsafe_b64encode(mac).rstrip(b"=").decode()
