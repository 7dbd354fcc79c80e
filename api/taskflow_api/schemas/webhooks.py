"""Bodies, queries and answers of /webhooks."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from taskflow_api.schemas.tasks import NO_CONTROLS, QueueName, TypeName
from taskflow_core.delivery_log import DeliveryState
from taskflow_core.webhooks import WebhookKind


def _without_repeats(items: list[Any]) -> list[Any]:
    return list(dict.fromkeys(items))


Url = Annotated[str, Field(min_length=1, max_length=2000, pattern=NO_CONTROLS, examples=["https://example.com/hook"])]
Kinds = Annotated[list[WebhookKind], Field(min_length=1, max_length=50), AfterValidator(_without_repeats)]
Types = Annotated[list[TypeName], Field(max_length=50), AfterValidator(_without_repeats)]
Queues = Annotated[list[QueueName], Field(max_length=50), AfterValidator(_without_repeats)]


class NewWebhookBody(BaseModel):
    """POST /webhooks: `kinds` of events of your tasks, of these types and queues only (empty: any)."""

    model_config = ConfigDict(extra="forbid")

    url: Url
    kinds: Kinds = Field(examples=[["task.completed", "task.failed"]])
    types: Types = []
    queues: Queues = []


class WebhookPatch(BaseModel):
    """PATCH /webhooks/{id}: what is given is changed, what is left out or null stays."""

    model_config = ConfigDict(extra="forbid")

    url: Url | None = None
    kinds: Kinds | None = None
    types: Types | None = None
    queues: Queues | None = None


class WebhookListQuery(BaseModel):
    """GET /webhooks."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=20, ge=1, le=100)
    cursor: UUID | None = None


class DeliveryListQuery(WebhookListQuery):
    """GET /webhooks/{id}/deliveries."""

    state: DeliveryState | None = None


class WebhookResource(BaseModel):
    """A webhook. `disabled_reason` says why it was disabled by the platform, `failing_since` that nothing arrives."""

    id: UUID
    url: str
    kinds: list[str]
    types: list[str]
    queues: list[str]
    disabled: bool
    disabled_at: datetime | None
    disabled_reason: str | None
    failing_since: datetime | None
    previous_secret_expires_at: datetime | None
    created_at: datetime
    updated_at: datetime
    owner_id: UUID


class WebhookWithSecret(WebhookResource):
    """A webhook with its signing secret, which is shown this once."""

    secret: str


class WebhookList(BaseModel):
    """A page of webhooks, newest first."""

    items: list[WebhookResource]
    next_cursor: UUID | None


class DeliveryResource(BaseModel):
    """A delivery; its id is the header `webhook-id`. `response` is that of the last attempt.

    It holds `status`, `latency_ms`, the beginning of the `body`, and `error` when there was no answer.
    """

    id: UUID
    webhook_id: UUID
    state: DeliveryState
    kind: str
    task_id: UUID | None
    attempts: int
    next_attempt_at: datetime | None
    delivered_at: datetime | None
    response: dict[str, Any] | None
    body: dict[str, Any]
    created_at: datetime


class DeliveryList(BaseModel):
    """A page of deliveries, newest first."""

    items: list[DeliveryResource]
    next_cursor: UUID | None
