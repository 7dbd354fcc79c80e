"""Use-cases of webhooks, endpoints that want events. None commits; the caller does."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from taskflow_core import security_events
from taskflow_core.actors import Actor
from taskflow_core.errors import Forbidden, NotFound, TooMany
from taskflow_core.identifiers import new_id
from taskflow_core.models.runtime import WebhookDelivery, WebhookEndpoint
from taskflow_core.sealing import Sealer
from taskflow_core.security_events import NOWHERE
from taskflow_core.security_events import EventKind as Kind
from taskflow_core.signatures import new_secret
from taskflow_core.webhook_urls import UrlRules

GIVE_UP = timedelta(hours=24)
BOTH_SECRETS = timedelta(hours=24)
MAX_REASON = 500


class WebhookKind(StrEnum):
    """What a webhook may ask for; ALL is every kind, those of later versions included."""

    ALL = "task.*"
    CREATED = "task.created"
    STARTED = "task.started"
    COMPLETED = "task.completed"
    FAILED = "task.failed"
    CANCELED = "task.canceled"
    RETRIED = "task.retried"
    TIMED_OUT = "task.timed_out"
    RELEASED = "task.released"
    SNOOZED = "task.snoozed"
    LOST = "task.lost"
    CANCEL_REQUESTED = "task.cancel_requested"
    RETRIED_BY_HAND = "task.retried_by_hand"
    EDITED = "task.edited"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewWebhook:
    """A request for a webhook. Empty `types` and `queues` mean any."""

    url: str
    kinds: list[WebhookKind]
    types: list[str]
    queues: list[str]


class Page(NamedTuple):
    """Webhooks, newest first, and the id after which the next page starts (None at the end)."""

    webhooks: list[WebhookEndpoint]
    next_after: UUID | None


async def create(
    session: AsyncSession, new: NewWebhook, *, actor: Actor, sealer: Sealer, rules: UrlRules, most: int
) -> tuple[WebhookEndpoint, str]:
    """Insert a webhook and return it with its secret, which is shown this once.

    Raises:
        Invalid: its URL may not be called.
        TooMany: the owner has `most` webhooks.
    """
    url = rules.check(new.url)
    mine = select(func.count()).select_from(WebhookEndpoint).where(col(WebhookEndpoint.owner_id) == actor.user_id)
    if (await session.execute(mine)).scalar_one() >= most:
        raise TooMany(f"you have {most} webhooks; delete one that you do not need", retry_after_s=60)
    secret, identifier = new_secret(), new_id()
    webhook = WebhookEndpoint(
        id=identifier,
        owner_id=actor.user_id,
        url=url,
        secret=sealer.seal(secret.encode(), row=identifier),
        kinds=list(new.kinds),
        types=new.types,
        queues=new.queues,
    )
    session.add(webhook)
    await session.flush()
    await session.refresh(webhook)
    return webhook, secret


async def get(session: AsyncSession, webhook_id: UUID, *, actor: Actor, lock: bool = False) -> WebhookEndpoint:
    """Return one webhook; with `lock`, nobody else changes it until the transaction ends.

    Raises:
        NotFound: no such webhook, or another owner's.
    """
    statement = select(WebhookEndpoint).where(col(WebhookEndpoint.id) == webhook_id, *_reach(actor))
    if lock:
        statement = statement.with_for_update()
    webhook = (await session.execute(statement)).scalar_one_or_none()
    if webhook is None:
        raise _none(webhook_id)
    return webhook


async def list_after(session: AsyncSession, *, actor: Actor, limit: int, after: UUID | None) -> Page:
    """Return a page of webhooks that come after the given id (newest first)."""
    statement = select(WebhookEndpoint).where(*_reach(actor)).order_by(col(WebhookEndpoint.id).desc())
    if after is not None:
        statement = statement.where(col(WebhookEndpoint.id) < after)
    found = list((await session.execute(statement.limit(limit + 1))).scalars())
    return Page(found[:limit], found[limit - 1].id if len(found) > limit else None)


async def change(
    session: AsyncSession,
    webhook_id: UUID,
    *,
    actor: Actor,
    rules: UrlRules,
    url: str | None = None,
    kinds: list[WebhookKind] | None = None,
    types: list[str] | None = None,
    queues: list[str] | None = None,
) -> WebhookEndpoint:
    """Change what is given; what waits to be sent goes to the new URL.

    Raises:
        NotFound: no such webhook, or another owner's.
        Invalid: the URL may not be called.
    """
    webhook = await get(session, webhook_id, actor=actor, lock=True)
    changes = {
        "url": None if url is None else rules.check(url),
        "kinds": None if kinds is None else list(kinds),
        "types": types,
        "queues": queues,
    }
    for name, value in changes.items():
        if value is not None:
            setattr(webhook, name, value)
    webhook.updated_at = await _now(session)
    return webhook


async def rotate_secret(
    session: AsyncSession, webhook_id: UUID, *, actor: Actor, sealer: Sealer
) -> tuple[WebhookEndpoint, str]:
    """Give a webhook a new secret and return it; for BOTH_SECRETS the one before signs too.

    Raises:
        NotFound: no such webhook, or another owner's.
        Forbidden: it is another owner's: a secret is shown to nobody else, whatever their role.
    """
    webhook = await get(session, webhook_id, actor=actor, lock=True)
    if webhook.owner_id != actor.user_id:
        raise Forbidden("only the owner of a webhook may see its secret")
    secret, now = new_secret(), await _now(session)
    webhook.previous_secret, webhook.previous_secret_expires_at = webhook.secret, now + BOTH_SECRETS
    webhook.secret = sealer.seal(secret.encode(), row=webhook.id)
    webhook.updated_at = now
    return webhook, secret


async def enable(session: AsyncSession, webhook_id: UUID, *, actor: Actor) -> WebhookEndpoint:
    """Let a webhook get the events that happen from now on.

    Raises:
        NotFound: no such webhook, or another owner's.
    """
    webhook = await get(session, webhook_id, actor=actor, lock=True)
    if webhook.disabled_at is not None:
        webhook.disabled_at = webhook.disabled_reason = webhook.first_failure_at = None
        webhook.enabled_at = webhook.updated_at = await _now(session)
    return webhook


async def disable(session: AsyncSession, webhook_id: UUID, *, actor: Actor) -> WebhookEndpoint:
    """Send nothing more to a webhook; what waits is given up, and can be sent again by hand.

    Raises:
        NotFound: no such webhook, or another owner's.
    """
    webhook = await get(session, webhook_id, actor=actor, lock=True)
    await give_up(session, webhook_id, reason=None, actor_id=actor.user_id)
    await session.refresh(webhook)
    return webhook


async def give_up(session: AsyncSession, webhook_id: UUID, *, reason: str | None, actor_id: UUID | None = None) -> bool:
    """Disable a webhook and what waits for it, and record it for its owner; False if it was disabled already."""
    turned_off = (
        update(WebhookEndpoint)
        .where(col(WebhookEndpoint.id) == webhook_id, col(WebhookEndpoint.disabled_at).is_(None))
        .values(
            disabled_at=func.clock_timestamp(),
            disabled_reason=None if reason is None else reason[:MAX_REASON],
            updated_at=func.clock_timestamp(),
        )
        .returning(col(WebhookEndpoint.owner_id), col(WebhookEndpoint.url))
    )
    row = (await session.execute(turned_off)).one_or_none()
    if row is None:
        return False
    waiting = (col(WebhookDelivery.endpoint_id) == webhook_id, col(WebhookDelivery.next_attempt_at).is_not(None))
    await session.execute(update(WebhookDelivery).where(*waiting).values(next_attempt_at=None))
    data = {"webhook_id": str(webhook_id), "reason": reason}
    await security_events.record(
        session, Kind.WEBHOOK_DISABLED, origin=NOWHERE, user_id=row.owner_id, actor_id=actor_id, data=data
    )
    return True


async def remove(session: AsyncSession, webhook_id: UUID, *, actor: Actor) -> None:
    """Delete a webhook with its deliveries.

    Raises:
        NotFound: no such webhook, or another owner's.
    """
    gone = delete(WebhookEndpoint).where(col(WebhookEndpoint.id) == webhook_id, *_reach(actor))
    if (await session.execute(gone.returning(col(WebhookEndpoint.id)))).scalar_one_or_none() is None:
        raise _none(webhook_id)


async def _now(session: AsyncSession) -> datetime:
    now: datetime = (await session.execute(select(func.clock_timestamp()))).scalar_one()
    return now


def _none(webhook_id: UUID) -> NotFound:
    return NotFound(f"there is no webhook {webhook_id}")


def _reach(actor: Actor) -> list[ColumnElement[bool]]:
    return [] if actor.sees_all else [col(WebhookEndpoint.owner_id) == actor.user_id]
