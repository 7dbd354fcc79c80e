"""/webhooks: URLs that are told what happens to one's tasks, and what was sent to them."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from starlette.requests import Request
from starlette.responses import Response

from taskflow_api.body import read
from taskflow_api.dependencies import CurrentActor, Opened, Session
from taskflow_api.openapi import takes
from taskflow_api.rendering import respond
from taskflow_api.schemas.webhooks import (
    DeliveryList,
    DeliveryListQuery,
    DeliveryResource,
    NewWebhookBody,
    WebhookList,
    WebhookListQuery,
    WebhookPatch,
    WebhookResource,
    WebhookWithSecret,
)
from taskflow_core import delivery_log, webhooks
from taskflow_core.addresses import AllowList
from taskflow_core.errors import NotConfigured
from taskflow_core.models.runtime import WebhookDelivery, WebhookEndpoint
from taskflow_core.sealing import Sealer, sealer_of
from taskflow_core.webhook_urls import UrlRules
from taskflow_core.webhooks import NewWebhook

PREFIX = "/api/v1/webhooks"
RETRY_S = 3600
ONE: dict[int | str, dict[str, Any]] = {200: {"model": WebhookResource}}
SENT: dict[int | str, dict[str, Any]] = {202: {"model": DeliveryResource}}

router = APIRouter(prefix=PREFIX, tags=["webhooks"])


async def get_sealer(opened: Opened) -> Sealer:
    """Return what encrypts secrets.

    Raises:
        NotConfigured: the operator has set no key.
    """
    sealer = sealer_of(opened.settings)
    if sealer is None:
        raise NotConfigured("webhooks are off here: the operator must set TASKFLOW_WEBHOOK_KEY", retry_after_s=RETRY_S)
    return sealer


async def get_rules(opened: Opened) -> UrlRules:
    """Return which URLs may be registered."""
    settings = opened.settings
    return UrlRules(AllowList.parse(settings.fetch_allow_hosts), settings.webhook_allow_http)


Seal = Annotated[Sealer, Depends(get_sealer)]
Rules = Annotated[UrlRules, Depends(get_rules)]


@router.post("", status_code=201, responses={201: {"model": WebhookWithSecret}}, openapi_extra=takes(NewWebhookBody))
async def create_webhook(
    request: Request, opened: Opened, actor: CurrentActor, session: Session, sealer: Seal, rules: Rules
) -> Response:
    """Register a URL; the answer holds its signing secret, which is never shown again."""
    body = await read(request, NewWebhookBody)
    new = NewWebhook(url=body.url, kinds=body.kinds, types=body.types, queues=body.queues)
    webhook, secret = await webhooks.create(
        session, new, actor=actor, sealer=sealer, rules=rules, most=opened.settings.max_webhooks
    )
    await session.commit()
    headers = {"Location": f"{PREFIX}/{webhook.id}"}
    return respond(_body(webhook) | {"secret": secret}, status=201, headers=headers)


@router.get("", responses={200: {"model": WebhookList}})
async def list_webhooks(query: Annotated[WebhookListQuery, Query()], actor: CurrentActor, session: Session) -> Response:
    """Return a page of webhooks, newest first."""
    page = await webhooks.list_after(session, actor=actor, limit=query.limit, after=query.cursor)
    return respond({"items": [_body(webhook) for webhook in page.webhooks], "next_cursor": page.next_after})


@router.get("/{webhook_id}", responses=ONE)
async def get_webhook(webhook_id: UUID, actor: CurrentActor, session: Session) -> Response:
    """Return one webhook."""
    return respond(_body(await webhooks.get(session, webhook_id, actor=actor)))


@router.patch("/{webhook_id}", responses=ONE, openapi_extra=takes(WebhookPatch))
async def change_webhook(
    webhook_id: UUID, request: Request, actor: CurrentActor, session: Session, rules: Rules
) -> Response:
    """Change the URL or what is sent there; what waits goes to the new URL."""
    body = await read(request, WebhookPatch)
    webhook = await webhooks.change(session, webhook_id, actor=actor, rules=rules, **body.model_dump())
    await session.commit()
    return respond(_body(webhook))


@router.delete("/{webhook_id}", status_code=204)
async def delete_webhook(webhook_id: UUID, actor: CurrentActor, session: Session) -> Response:
    """Delete a webhook with its deliveries; what is under way at this moment may still arrive."""
    await webhooks.remove(session, webhook_id, actor=actor)
    await session.commit()
    return Response(status_code=204)


@router.post("/{webhook_id}:rotateSecret", responses={200: {"model": WebhookWithSecret}})
async def rotate_webhook_secret(webhook_id: UUID, actor: CurrentActor, session: Session, sealer: Seal) -> Response:
    """Make a new signing secret; for 24 hours the one before signs too."""
    webhook, secret = await webhooks.rotate_secret(session, webhook_id, actor=actor, sealer=sealer)
    await session.commit()
    return respond(_body(webhook) | {"secret": secret})


@router.post("/{webhook_id}:enable", responses=ONE)
async def enable_webhook(webhook_id: UUID, actor: CurrentActor, session: Session) -> Response:
    """Send the events that happen from now on."""
    webhook = await webhooks.enable(session, webhook_id, actor=actor)
    await session.commit()
    return respond(_body(webhook))


@router.post("/{webhook_id}:disable", responses=ONE)
async def disable_webhook(webhook_id: UUID, actor: CurrentActor, session: Session) -> Response:
    """Send nothing more; what waits is given up."""
    webhook = await webhooks.disable(session, webhook_id, actor=actor)
    await session.commit()
    return respond(_body(webhook))


@router.post("/{webhook_id}:test", status_code=202, responses=SENT)
async def test_webhook(webhook_id: UUID, actor: CurrentActor, session: Session) -> Response:
    """Send an event of the kind "webhook.test"; the delivery tells what became of it."""
    delivery = await delivery_log.test(session, webhook_id, actor=actor)
    await session.commit()
    return respond(_delivery(delivery), status=202)


@router.get("/{webhook_id}/deliveries", responses={200: {"model": DeliveryList}})
async def list_webhook_deliveries(
    webhook_id: UUID, query: Annotated[DeliveryListQuery, Query()], actor: CurrentActor, session: Session
) -> Response:
    """Return a page of what was sent or waits to be, newest first."""
    page = await delivery_log.deliveries_after(
        session, webhook_id, actor=actor, limit=query.limit, after=query.cursor, state=query.state
    )
    return respond({"items": [_delivery(one) for one in page.deliveries], "next_cursor": page.next_after})


@router.post("/{webhook_id}/deliveries/{delivery_id}:redeliver", status_code=202, responses=SENT)
async def redeliver_webhook(webhook_id: UUID, delivery_id: UUID, actor: CurrentActor, session: Session) -> Response:
    """Send a delivery again, under the same webhook-id."""
    delivery = await delivery_log.redeliver(session, webhook_id, delivery_id, actor=actor)
    await session.commit()
    return respond(_delivery(delivery), status=202)


def _body(webhook: WebhookEndpoint) -> dict[str, Any]:
    """Return the fields of WebhookResource."""
    return {
        "id": webhook.id,
        "url": webhook.url,
        "kinds": webhook.kinds,
        "types": webhook.types,
        "queues": webhook.queues,
        "disabled": webhook.disabled_at is not None,
        "disabled_at": webhook.disabled_at,
        "disabled_reason": webhook.disabled_reason,
        "failing_since": webhook.first_failure_at,
        "previous_secret_expires_at": webhook.previous_secret_expires_at,
        "created_at": webhook.created_at,
        "updated_at": webhook.updated_at,
        "owner_id": webhook.owner_id,
    }


def _delivery(delivery: WebhookDelivery) -> dict[str, Any]:
    """Return the fields of DeliveryResource."""
    return {
        "id": delivery.id,
        "webhook_id": delivery.endpoint_id,
        "state": delivery_log.state_of(delivery),
        "kind": delivery.kind,
        "task_id": delivery.task_id,
        "attempts": delivery.attempt,
        "next_attempt_at": delivery.next_attempt_at,
        "delivered_at": delivery.delivered_at,
        "response": delivery.response,
        "body": delivery.body,
        "created_at": delivery.created_at,
    }
