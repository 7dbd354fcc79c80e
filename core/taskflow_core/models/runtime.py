"""What runs: workers, queues, schedules, webhooks, and the platform's own state."""

from datetime import datetime
from typing import ClassVar
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Index, LargeBinary, Text, Uuid, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlmodel import Field, SQLModel

from taskflow_core.models.columns import Json, json_field, now_field, time_field


class WorkerRow(SQLModel, table=True):
    """One boot of a worker. `held` names every task it may be running, written in the claiming transaction.

    Expired leases are found from here, so that no index on the lease makes a claim dear.
    """

    __tablename__ = "workers"

    id: str = Field(primary_key=True, sa_type=Text)
    name: str = Field(sa_type=Text)
    hostname: str = Field(sa_type=Text)
    pid: int
    queues: list[str] = Field(sa_type=ARRAY(Text))
    slots: int
    held: list[UUID] = Field(default_factory=list, sa_type=ARRAY(Uuid))
    state: str = Field(default="running", sa_type=Text)
    version: str = Field(sa_type=Text)
    started_at: datetime = now_field()
    heartbeat_at: datetime = now_field()


class QueueRow(SQLModel, table=True):
    """A queue that was named at least once; `paused_at` stops workers from taking from it."""

    __tablename__ = "queues"

    name: str = Field(primary_key=True, sa_type=Text)
    paused_at: datetime | None = time_field()
    created_at: datetime = now_field()


class Schedule(SQLModel, table=True):
    """A cron expression in a time zone that creates tasks of `template`.

    `paused_reason` is null when a person paused it, else what the scheduler found wrong with it.
    """

    __tablename__ = "schedules"
    __table_args__: ClassVar[tuple[Index, ...]] = (
        Index("schedules_next", "next_fire_at", postgresql_where=text("paused_at IS NULL")),
    )

    id: UUID = Field(primary_key=True)
    owner_id: UUID = Field(sa_column_args=[ForeignKey("users.id", ondelete="CASCADE")], index=True)
    name: str = Field(sa_type=Text)
    cron: str = Field(sa_type=Text)
    timezone: str = Field(default="UTC", sa_type=Text)
    misfire: str = Field(default="skip", sa_type=Text)
    template: Json = Field(sa_type=JSONB)
    next_fire_at: datetime | None = time_field()
    last_fire_at: datetime | None = time_field()
    paused_at: datetime | None = time_field()
    paused_reason: str | None = Field(default=None, sa_type=Text)
    created_at: datetime = now_field()
    updated_at: datetime = now_field()


class WebhookEndpoint(SQLModel, table=True):
    """An address that wants events; `secret` is encrypted by the application before it is stored.

    `previous_secret` signs too until it expires. `disabled_reason` is null when a person disabled it.
    `first_failure_at` is null once a delivery has succeeded. Events before `enabled_at` are not for it.
    """

    __tablename__ = "webhook_endpoints"

    id: UUID = Field(primary_key=True)
    owner_id: UUID = Field(sa_column_args=[ForeignKey("users.id", ondelete="CASCADE")], index=True)
    url: str = Field(sa_type=Text)
    secret: bytes = Field(sa_type=LargeBinary)
    kinds: list[str] = Field(sa_type=ARRAY(Text))
    types: list[str] = Field(default_factory=list, sa_type=ARRAY(Text))
    queues: list[str] = Field(default_factory=list, sa_type=ARRAY(Text))
    previous_secret: bytes | None = Field(default=None, sa_type=LargeBinary)
    previous_secret_expires_at: datetime | None = time_field()
    first_failure_at: datetime | None = time_field()
    enabled_at: datetime = now_field()
    disabled_at: datetime | None = time_field()
    disabled_reason: str | None = Field(default=None, sa_type=Text)
    created_at: datetime = now_field()
    updated_at: datetime = now_field()


class WebhookDelivery(SQLModel, table=True):
    """One event on its way to one endpoint; a test has no task and no event.

    `next_attempt_at` is null when nothing more will be sent. While it is being sent, it is when another scheduler may
    take it over.
    """

    __tablename__ = "webhook_deliveries"
    __table_args__: ClassVar[tuple[Index, ...]] = (
        Index("webhook_deliveries_due", "next_attempt_at", postgresql_where=text("next_attempt_at IS NOT NULL")),
        Index(
            "webhook_deliveries_waiting",
            "endpoint_id",
            "next_attempt_at",
            postgresql_where=text("next_attempt_at IS NOT NULL"),
        ),
        Index(
            "webhook_deliveries_event",
            "endpoint_id",
            "event_id",
            unique=True,
            postgresql_where=text("event_id IS NOT NULL"),
        ),
        Index("webhook_deliveries_newest", "endpoint_id", text("id DESC")),
    )

    id: UUID = Field(primary_key=True)
    endpoint_id: UUID = Field(sa_column_args=[ForeignKey("webhook_endpoints.id", ondelete="CASCADE")], index=True)
    event_id: int | None = Field(default=None, sa_type=BigInteger)
    task_id: UUID | None = None
    kind: str = Field(sa_type=Text)
    body: Json = Field(sa_type=JSONB)
    attempt: int = 0
    next_attempt_at: datetime | None = time_field()
    gives_up_at: datetime | None = time_field()
    delivered_at: datetime | None = time_field()
    response: Json | None = json_field()
    created_at: datetime = now_field()


class PlatformState(SQLModel, table=True):
    """A few values that all processes share, such as the epoch that Redis must know."""

    __tablename__ = "platform_state"

    key: str = Field(primary_key=True, sa_type=Text)
    value: str = Field(sa_type=Text)
    updated_at: datetime = now_field()
