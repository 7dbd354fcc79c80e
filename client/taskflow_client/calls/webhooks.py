"""Operations on webhooks and what was sent to them."""

from collections.abc import Sequence
from uuid import UUID

from taskflow_client.call import Call, given, model, nothing, segment
from taskflow_client.models import Delivery, Page, Webhook

Id = str | UUID


def create_webhook(
    url: str, kinds: Sequence[str], *, types: Sequence[str] | None = None, queues: Sequence[str] | None = None
) -> Call[Webhook]:
    """Register a URL; the answer is the only one that holds its signing secret."""
    body = given(url=url, kinds=list(kinds), types=types, queues=queues)
    return Call("POST", "/webhooks", model(Webhook), body=body)


def list_webhooks(*, limit: int = 100, cursor: str | None = None) -> Call[Page[Webhook]]:
    """Return webhooks, newest first."""
    return Call("GET", "/webhooks", model(Page[Webhook]), query=given(limit=limit, cursor=cursor))


def get_webhook(webhook_id: Id) -> Call[Webhook]:
    """Return one webhook."""
    return Call("GET", f"/webhooks/{segment(webhook_id)}", model(Webhook))


def change_webhook(
    webhook_id: Id,
    *,
    url: str | None = None,
    kinds: Sequence[str] | None = None,
    types: Sequence[str] | None = None,
    queues: Sequence[str] | None = None,
) -> Call[Webhook]:
    """Change the URL or what is sent there."""
    body = given(url=url, kinds=kinds, types=types, queues=queues)
    return Call("PATCH", f"/webhooks/{segment(webhook_id)}", model(Webhook), body=body)


def delete_webhook(webhook_id: Id) -> Call[None]:
    """Delete a webhook with its deliveries."""
    return Call("DELETE", f"/webhooks/{segment(webhook_id)}", nothing)


def rotate_webhook_secret(webhook_id: Id) -> Call[Webhook]:
    """Make a new signing secret; the one before signs too for a day."""
    return Call("POST", f"/webhooks/{segment(webhook_id)}:rotateSecret", model(Webhook))


def enable_webhook(webhook_id: Id) -> Call[Webhook]:
    """Send the events that happen from now on."""
    return Call("POST", f"/webhooks/{segment(webhook_id)}:enable", model(Webhook))


def disable_webhook(webhook_id: Id) -> Call[Webhook]:
    """Send nothing more."""
    return Call("POST", f"/webhooks/{segment(webhook_id)}:disable", model(Webhook))


def test_webhook(webhook_id: Id) -> Call[Delivery]:
    """Send an event of the kind "webhook.test"."""
    return Call("POST", f"/webhooks/{segment(webhook_id)}:test", model(Delivery))


def list_webhook_deliveries(
    webhook_id: Id, *, state: str | None = None, limit: int = 100, cursor: str | None = None
) -> Call[Page[Delivery]]:
    """Return what was sent or waits to be, newest first."""
    query = given(state=state, limit=limit, cursor=cursor)
    return Call("GET", f"/webhooks/{segment(webhook_id)}/deliveries", model(Page[Delivery]), query=query)


def redeliver_webhook(webhook_id: Id, delivery_id: Id) -> Call[Delivery]:
    """Send a delivery again, under the same webhook-id."""
    path = f"/webhooks/{segment(webhook_id)}/deliveries/{segment(delivery_id)}:redeliver"
    return Call("POST", path, model(Delivery))
