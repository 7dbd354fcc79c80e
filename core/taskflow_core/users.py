"""Use-cases of one's own account: register, find, log in, change the password. None commits; the caller does."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from email_validator import EmailNotValidError, validate_email
from psycopg import AsyncConnection
from psycopg.rows import tuple_row
from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from taskflow_core import security_events
from taskflow_core.errors import AlreadyRegistered, Conflict, FieldProblem, Invalid, Unauthenticated
from taskflow_core.identifiers import new_id
from taskflow_core.models.users import Role, User
from taskflow_core.security_events import NOWHERE, EventKind, Origin


def normalise_email(raw: str) -> str:
    """Return the address in lower case, an international domain in its ASCII form.

    Raises:
        Invalid: it is not an address; says why.
    """
    try:
        # Not every installation faces the internet: .local and .internal are fine, a name without a dot is not.
        parts = validate_email(
            raw, check_deliverability=False, globally_deliverable=False, allow_smtputf8=False, strict=True
        )
        if "." not in parts.ascii_domain:
            raise EmailNotValidError("The part after the @-sign needs a dot, as in example.com.")
    except EmailNotValidError as error:
        raise Invalid("the email address is not valid", [FieldProblem("email", str(error))]) from None
    return f"{parts.ascii_local_part}@{parts.ascii_domain}".lower()


async def register(
    session: AsyncSession, *, email: str, password_hash: str, role: Role = Role.USER, origin: Origin = NOWHERE
) -> User:
    """Insert an account; `email` is normalised.

    Raises:
        AlreadyRegistered: the address has an account.
    """
    statement = (
        insert(User)
        .values(id=new_id(), email=email, password_hash=password_hash, role=role)
        .on_conflict_do_nothing(index_elements=["email"])
        .returning(User)
    )
    user = (await session.execute(statement)).scalar_one_or_none()
    if user is None:
        raise AlreadyRegistered("this email address already has an account; log in instead")
    await security_events.record(
        session, EventKind.USER_REGISTERED, origin=origin, user_id=user.id, data={"role": role}
    )
    return user


async def find(session: AsyncSession, email: str) -> User | None:
    """Return the account of a normalised address, or None."""
    return (await session.execute(select(User).where(col(User.email) == email))).scalar_one_or_none()


async def get_active(session: AsyncSession, user_id: UUID) -> User:
    """Return an account that may act.

    Raises:
        Unauthenticated: there is none, or it is disabled.
    """
    user = await session.get(User, user_id)
    if user is None or user.disabled_at is not None:
        raise _inactive()
    return user


async def lock_active(session: AsyncSession, user_id: UUID) -> User:
    """Return an account that may act, and let nobody change it until the transaction ends.

    Raises:
        Unauthenticated: there is none, or it is disabled.
    """
    statement = select(User).where(col(User.id) == user_id, col(User.disabled_at).is_(None))
    locked = statement.with_for_update(key_share=True).execution_options(populate_existing=True)
    user = (await session.execute(locked)).scalar_one_or_none()
    if user is None:
        raise _inactive()
    return user


async def log_in(session: AsyncSession, seen: User, *, new_hash: str | None) -> User | None:
    """Note a login of an account whose password was right as it was `seen`, and keep a better hash if there is one.

    Returns the account as it stands, locked until the transaction ends; None if it was disabled or given another
    password meanwhile: the password that was checked counts no longer.
    """
    changes: dict[str, object] = {"last_login_at": func.now()}
    if new_hash is not None:
        changes |= {"password_hash": new_hash, "updated_at": func.now()}
    # Each login may replace the hash, and whoever ends all tokens raises the version; a new password does both.
    unchanged = or_(col(User.password_hash) == seen.password_hash, col(User.token_version) == seen.token_version)
    return await _change(session, seen.id, unchanged, values=changes)


async def change_password(session: AsyncSession, seen: User, *, password_hash: str) -> User:
    """Replace the password that an account was `seen` with, and end all its access tokens.

    Raises:
        Conflict: it was disabled or given another password meanwhile.
    """
    changes = {"password_hash": password_hash, **_ended_tokens()}
    user = await _change(session, seen.id, col(User.password_hash) == seen.password_hash, values=changes)
    if user is None:
        raise Conflict("the account was changed meanwhile; log in again")
    return user


async def end_tokens(session: AsyncSession, user_id: UUID) -> None:
    """End all access tokens of an account."""
    await _change(session, user_id, values=_ended_tokens())


async def standing(connection: AsyncConnection[Any], user_ids: Sequence[UUID]) -> dict[UUID, tuple[Role, int]]:
    """Return role and token version of those accounts that exist and are not disabled."""
    async with connection.cursor(row_factory=tuple_row) as cursor:
        statement = "SELECT id, role, token_version FROM users WHERE id = ANY(%s::uuid[]) AND disabled_at IS NULL"
        await cursor.execute(statement, [list(user_ids)])
        return {row[0]: (Role(row[1]), row[2]) for row in await cursor.fetchall()}


def _ended_tokens() -> dict[str, object]:
    return {"token_version": col(User.token_version) + 1, "updated_at": func.now()}


async def _change(
    session: AsyncSession, user_id: UUID, *conditions: ColumnElement[bool], values: dict[str, object]
) -> User | None:
    statement = (
        update(User)
        .where(col(User.id) == user_id, col(User.disabled_at).is_(None), *conditions)
        .values(values)
        .returning(User)
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    return (await session.execute(statement)).scalar_one_or_none()


def _inactive() -> Unauthenticated:
    return Unauthenticated("this account is not active")
