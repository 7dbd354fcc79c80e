"""What happened to accounts and access: written in the transaction of the change itself, read by an ADMIN."""

from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from taskflow_core.models.access import SecurityEvent
from taskflow_core.models.columns import Json

MAX_NOTE_CHARACTERS = 200
MAX_ADDRESS_CHARACTERS = 64


class EventKind(StrEnum):
    """The kinds of events, `noun.verb`."""

    USER_REGISTERED = "user.registered"
    USER_DISABLED = "user.disabled"
    USER_ENABLED = "user.enabled"
    ROLE_CHANGED = "role.changed"
    LOGIN_SUCCEEDED = "login.succeeded"
    LOGIN_FAILED = "login.failed"
    PASSWORD_CHANGED = "password.changed"  # noqa: S105 - the name of an event
    REFRESH_REUSED = "refresh.reused"
    SESSION_REVOKED = "session.revoked"
    SESSIONS_REVOKED = "sessions.revoked"
    KEY_CREATED = "key.created"
    KEY_REVOKED = "key.revoked"
    QUEUE_PAUSED = "queue.paused"
    QUEUE_RESUMED = "queue.resumed"
    WEBHOOK_DISABLED = "webhook.disabled"


class Origin(NamedTuple):
    """Where a request came from. The parts are the client's words: they are bounded and cleaned where they are kept."""

    address: str = ""
    user_agent: str = ""
    request_id: str = ""

    def cleaned(self) -> "Origin":
        """Return the same with bounded parts, and `?` for what does not print: a line of a log stays one line."""
        return Origin(
            _clean(self.address, MAX_ADDRESS_CHARACTERS),
            _clean(self.user_agent, MAX_NOTE_CHARACTERS),
            _clean(self.request_id, MAX_NOTE_CHARACTERS),
        )


NOWHERE = Origin()  # a command at the database


class Page(NamedTuple):
    """Events, newest first, and the id after which the next page starts (None at the end)."""

    events: list[SecurityEvent]
    next_after: int | None


async def record(
    session: AsyncSession,
    kind: EventKind,
    *,
    origin: Origin,
    user_id: UUID | None,
    actor_id: UUID | None = None,
    data: Json | None = None,
) -> None:
    """Note an event about `user_id`, done by `actor_id`; it exists if the transaction is committed.

    `data` holds ids and closed words of ours, never what a client sent.
    """
    values = {"kind": kind, "user_id": user_id, "actor_id": actor_id, "data": data, **origin.cleaned()._asdict()}
    await session.execute(insert(SecurityEvent).values(values))


async def list_after(
    session: AsyncSession, *, user_id: UUID | None, kind: EventKind | None, limit: int, after: int | None
) -> Page:
    """Return a page of events that come after the given id (newest first)."""
    statement = select(SecurityEvent).order_by(col(SecurityEvent.id).desc())
    if user_id is not None:
        statement = statement.where(col(SecurityEvent.user_id) == user_id)
    if kind is not None:
        statement = statement.where(col(SecurityEvent.kind) == kind)
    if after is not None:
        statement = statement.where(col(SecurityEvent.id) < after)
    found = list((await session.execute(statement.limit(limit + 1))).scalars())
    return Page(found[:limit], found[limit - 1].id if len(found) > limit else None)


def _clean(text: str, most: int) -> str:
    return "".join(character if character.isprintable() else "?" for character in text[:most])
