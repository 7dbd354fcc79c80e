"""Use-cases of accounts of others, for an ADMIN: list, get, give a role, disable. None commits; the caller does."""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from taskflow_core import api_keys, refresh, security_events
from taskflow_core.actors import Actor
from taskflow_core.errors import Forbidden, LastAdmin, NotFound
from taskflow_core.models.columns import Json
from taskflow_core.models.users import Role, User
from taskflow_core.security_events import EventKind, Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class UserFilter:
    """Which accounts to list; None: any."""

    email_prefix: str | None = None
    role: Role | None = None
    disabled: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UserChange:
    """What to change of an account; None: nothing."""

    role: Role | None = None
    disabled: bool | None = None


class Page(NamedTuple):
    """Accounts, newest first, and the id after which the next page starts (None at the end)."""

    users: list[User]
    next_after: UUID | None


class Changed(NamedTuple):
    """An account as it stands, and the hashes of its keys that were revoked."""

    user: User
    key_hashes: list[bytes]


async def list_after(session: AsyncSession, filters: UserFilter, *, limit: int, after: UUID | None) -> Page:
    """Return a page of accounts that come after the given id (newest first)."""
    statement = select(User).order_by(col(User.id).desc())
    if filters.email_prefix is not None:
        statement = statement.where(func.starts_with(col(User.email), filters.email_prefix.lower()))
    if filters.role is not None:
        statement = statement.where(col(User.role) == filters.role)
    if filters.disabled is not None:
        is_active = col(User.disabled_at).is_(None)
        statement = statement.where(~is_active if filters.disabled else is_active)
    if after is not None:
        statement = statement.where(col(User.id) < after)
    found = list((await session.execute(statement.limit(limit + 1))).scalars())
    return Page(found[:limit], found[limit - 1].id if len(found) > limit else None)


async def get(session: AsyncSession, user_id: UUID) -> User:
    """Return an account.

    Raises:
        NotFound: there is none.
    """
    user = await session.get(User, user_id)
    if user is None:
        raise _none(user_id)
    return user


async def change(session: AsyncSession, user_id: UUID, wanted: UserChange, *, actor: Actor, origin: Origin) -> Changed:
    """Change an account's role or state: a new role ends its access tokens, disabling its sessions and keys too.

    Raises:
        Forbidden: the actor is no ADMIN any more.
        NotFound: there is no such account.
        LastAdmin: nobody would be left to manage accounts.
    """
    admins = await _lock_admins(session)
    if actor.user_id not in admins:
        raise Forbidden("only an ADMIN may change accounts")
    user = await _lock(session, user_id)
    stays = wanted.role in {None, Role.ADMIN} and not wanted.disabled
    if admins == [user_id] and not stays:
        raise LastAdmin("this is the last active ADMIN; make another one first")
    key_hashes: list[bytes] = []
    if wanted.role not in {None, user.role}:
        await _give_role(session, user, Role(wanted.role), actor=actor, origin=origin)
    if wanted.disabled is True and user.disabled_at is None:
        key_hashes = await _disable(session, user, actor=actor, origin=origin)
    if wanted.disabled is False and user.disabled_at is not None:
        user.disabled_at = None
        await _record(session, EventKind.USER_ENABLED, user, actor=actor, origin=origin)
    user.updated_at = await _now(session)
    await session.flush()
    return Changed(user, key_hashes)


async def _give_role(session: AsyncSession, user: User, role: Role, *, actor: Actor, origin: Origin) -> None:
    data: Json = {"from": user.role, "to": role}
    user.role = role
    user.token_version += 1
    await _record(session, EventKind.ROLE_CHANGED, user, actor=actor, origin=origin, data=data)


async def _disable(session: AsyncSession, user: User, *, actor: Actor, origin: Origin) -> list[bytes]:
    user.disabled_at = await _now(session)
    user.token_version += 1
    await refresh.revoke_all(session, user.id)
    await _record(session, EventKind.USER_DISABLED, user, actor=actor, origin=origin)
    return await api_keys.revoke_all(session, user.id)


async def _lock_admins(session: AsyncSession) -> list[UUID]:
    """Return who is an active ADMIN; of two changes at once, the second waits and sees what the first left."""
    statement = (
        select(col(User.id))
        .where(col(User.role) == Role.ADMIN, col(User.disabled_at).is_(None))
        .order_by(col(User.id))
        .with_for_update(key_share=True)
    )
    return list((await session.execute(statement)).scalars())


async def _lock(session: AsyncSession, user_id: UUID) -> User:
    locked = select(User).where(col(User.id) == user_id).with_for_update(key_share=True)
    user = (await session.execute(locked.execution_options(populate_existing=True))).scalar_one_or_none()
    if user is None:
        raise _none(user_id)
    return user


async def _record(
    session: AsyncSession, kind: EventKind, user: User, *, actor: Actor, origin: Origin, data: Json | None = None
) -> None:
    await security_events.record(session, kind, origin=origin, user_id=user.id, actor_id=actor.user_id, data=data)


async def _now(session: AsyncSession) -> datetime:
    now: datetime = (await session.execute(select(func.clock_timestamp()))).scalar_one()
    return now


def _none(user_id: UUID) -> NotFound:
    return NotFound(f"there is no account {user_id}")
