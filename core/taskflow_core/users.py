"""Use-cases of accounts: register, find, note a login. None commits; the caller does."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from email_validator import EmailNotValidError, validate_email
from psycopg import AsyncConnection
from psycopg.rows import tuple_row
from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from taskflow_core.errors import AlreadyRegistered, FieldProblem, Invalid, Unauthenticated
from taskflow_core.identifiers import new_id
from taskflow_core.models.users import Role, User


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


async def register(session: AsyncSession, *, email: str, password_hash: str, role: Role = Role.USER) -> User:
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
        raise Unauthenticated("this account is not active")
    return user


async def note_login(session: AsyncSession, user_id: UUID, *, new_hash: str | None) -> None:
    """Remember when the account logged in last, and keep a better hash of its password if there is one."""
    changes: dict[str, object] = {"last_login_at": func.now()}
    if new_hash is not None:
        changes |= {"password_hash": new_hash, "updated_at": func.now()}
    await session.execute(update(User).where(col(User.id) == user_id).values(changes))


async def standing(connection: AsyncConnection[Any], user_ids: Sequence[UUID]) -> dict[UUID, tuple[Role, int]]:
    """Return role and token version of those accounts that exist and are not disabled."""
    async with connection.cursor(row_factory=tuple_row) as cursor:
        statement = "SELECT id, role, token_version FROM users WHERE id = ANY(%s::uuid[]) AND disabled_at IS NULL"
        await cursor.execute(statement, [list(user_ids)])
        return {row[0]: (Role(row[1]), row[2]) for row in await cursor.fetchall()}
