"""Use-cases of what was sent to a webhook: list it, test it, send it again. None commits; the caller does."""

from datetime import datetime
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from taskflow_core import webhooks
from taskflow_core.actors import Actor
from taskflow_core.errors import Conflict, NotFound
from taskflow_core.identifiers import new_id
from taskflow_core.models.columns import Json
from taskflow_core.models.runtime import WebhookDelivery, WebhookEndpoint
from taskflow_core.webhooks import GIVE_UP

TEST_KIND = "webhook.test"


class DeliveryState(StrEnum):
    """Where a delivery is: on its way (or waiting for another attempt), arrived, or given up."""

    WAITING = "WAITING"
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"


class DeliveryPage(NamedTuple):
    """Deliveries, newest first, and the id after which the next page starts (None at the end)."""

    deliveries: list[WebhookDelivery]
    next_after: UUID | None


async def test(session: AsyncSession, webhook_id: UUID, *, actor: Actor) -> WebhookDelivery:
    """Send a webhook an event of the kind "webhook.test", now and like any other.

    Raises:
        NotFound: no such webhook, or another owner's.
        Conflict: it is disabled.
    """
    webhook = await webhooks.get(session, webhook_id, actor=actor)
    _require_enabled(webhook)
    now = await _now(session)
    body: Json = {"type": TEST_KIND, "timestamp": now.isoformat(), "data": {"webhook_id": str(webhook_id)}}
    delivery = WebhookDelivery(
        id=new_id(),
        endpoint_id=webhook_id,
        kind=TEST_KIND,
        body=body,
        next_attempt_at=now,
        gives_up_at=now + GIVE_UP,
    )
    session.add(delivery)
    await session.flush()
    await session.refresh(delivery)
    return delivery


async def deliveries_after(
    session: AsyncSession,
    webhook_id: UUID,
    *,
    actor: Actor,
    limit: int,
    after: UUID | None,
    state: DeliveryState | None = None,
) -> DeliveryPage:
    """Return a page of a webhook's deliveries that come after the given id (newest first).

    Raises:
        NotFound: no such webhook, or another owner's.
    """
    await webhooks.get(session, webhook_id, actor=actor)
    statement = select(WebhookDelivery).where(col(WebhookDelivery.endpoint_id) == webhook_id, *_in_state(state))
    if after is not None:
        statement = statement.where(col(WebhookDelivery.id) < after)
    statement = statement.order_by(col(WebhookDelivery.id).desc()).limit(limit + 1)
    found = list((await session.execute(statement)).scalars())
    return DeliveryPage(found[:limit], found[limit - 1].id if len(found) > limit else None)


async def redeliver(session: AsyncSession, webhook_id: UUID, delivery_id: UUID, *, actor: Actor) -> WebhookDelivery:
    """Send a delivery again, under the same webhook-id, with a fresh day of attempts.

    Raises:
        NotFound: no such webhook or delivery, or another owner's.
        Conflict: the webhook is disabled, or the delivery is still on its way.
    """
    _require_enabled(await webhooks.get(session, webhook_id, actor=actor))
    statement = select(WebhookDelivery).where(
        col(WebhookDelivery.id) == delivery_id, col(WebhookDelivery.endpoint_id) == webhook_id
    )
    delivery = (await session.execute(statement.with_for_update())).scalar_one_or_none()
    if delivery is None:
        raise NotFound(f"there is no delivery {delivery_id} of this webhook")
    if delivery.next_attempt_at is not None:
        raise Conflict("this delivery is still on its way; wait until it is DELIVERED or FAILED")
    now = await _now(session)
    delivery.next_attempt_at, delivery.gives_up_at, delivery.delivered_at = now, now + GIVE_UP, None
    return delivery


def state_of(delivery: WebhookDelivery) -> DeliveryState:
    """Return where the delivery is."""
    if delivery.next_attempt_at is not None:
        return DeliveryState.WAITING
    return DeliveryState.FAILED if delivery.delivered_at is None else DeliveryState.DELIVERED


def _in_state(state: DeliveryState | None) -> list[ColumnElement[bool]]:
    ended = col(WebhookDelivery.next_attempt_at).is_(None)
    match state:
        case None:
            return []
        case DeliveryState.WAITING:
            return [col(WebhookDelivery.next_attempt_at).is_not(None)]
        case DeliveryState.DELIVERED:
            return [ended, col(WebhookDelivery.delivered_at).is_not(None)]
        case DeliveryState.FAILED:
            return [ended, col(WebhookDelivery.delivered_at).is_(None)]


def _require_enabled(webhook: WebhookEndpoint) -> None:
    if webhook.disabled_at is not None:
        raise Conflict("this webhook is disabled; enable it first")


async def _now(session: AsyncSession) -> datetime:
    now: datetime = (await session.execute(select(func.clock_timestamp()))).scalar_one()
    return now
