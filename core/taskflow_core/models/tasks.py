"""Tasks, and the history kept beside them in the same transactions.

No index names a column that a claim changes, so a claim stays a heap-only update; see docs/adr/0002.
"""

from datetime import datetime
from typing import ClassVar
from uuid import UUID

from sqlalchemy import BigInteger, Computed, Identity, Index, SmallInteger, Text, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlmodel import Field, SQLModel

from taskflow_core.lifecycle import TaskStatus
from taskflow_core.models.columns import Json, TimestampTz, json_field, now_field, time_field

OPEN = "finished_at IS NULL"


class Task(SQLModel, table=True):
    """The row a user owns. `created_at` is the time inside the id (UUIDv7), so both order alike."""

    __tablename__ = "tasks"
    __table_args__: ClassVar[tuple[Index, ...]] = (
        Index("tasks_owner", "owner_id", text("id DESC")),
        Index("tasks_owner_open", "owner_id", text("id DESC"), postgresql_where=text(OPEN)),
        Index("tasks_unsuccessful", "unsuccessful", text("id DESC"), postgresql_where=text("unsuccessful IS NOT NULL")),
        Index(
            "tasks_owner_unsuccessful",
            "owner_id",
            "unsuccessful",
            text("id DESC"),
            postgresql_where=text("unsuccessful IS NOT NULL"),
        ),
        Index("tasks_due", "run_at", postgresql_where=text(f"{OPEN} AND enqueued_at IS NULL")),
        Index("tasks_enqueued", "lane", "enqueued_at", postgresql_where=text(f"{OPEN} AND enqueued_at IS NOT NULL")),
        Index(
            "tasks_dedup",
            "owner_id",
            "type",
            "dedup_key",
            unique=True,
            postgresql_where=text(f"{OPEN} AND dedup_key IS NOT NULL"),
        ),
        Index("tasks_batch", "batch_id", postgresql_where=text("batch_id IS NOT NULL")),
        Index(
            "tasks_fire",
            "schedule_id",
            "fire_at",
            unique=True,
            postgresql_where=text("schedule_id IS NOT NULL"),
        ),
    )

    id: UUID = Field(primary_key=True)
    owner_id: UUID
    type: str = Field(sa_type=Text)
    title: str = Field(default="", sa_type=Text)
    queue: str = Field(default="default", sa_type=Text)
    lane: str = Field(default="default", sa_type=Text)
    priority: int = Field(default=0, sa_type=SmallInteger)
    status: str = Field(default=TaskStatus.PENDING, sa_type=Text)
    payload: Json = Field(sa_type=JSONB)
    result: Json | None = json_field()
    error: Json | None = json_field()
    progress: Json | None = json_field()
    tags: list[str] = Field(default_factory=list, sa_type=ARRAY(Text))
    attempt: int = 0
    max_attempts: int = 3
    fence: int = Field(default=0, sa_type=BigInteger)
    timeout_s: int = 300
    run_at: datetime = now_field()
    enqueued_at: datetime | None = time_field()
    claimed_at: datetime | None = time_field()
    worker_id: str | None = Field(default=None, sa_type=Text)
    lease_expires_at: datetime | None = time_field()
    cancel_requested_at: datetime | None = time_field()
    dedup_key: str | None = Field(default=None, sa_type=Text)
    batch_id: UUID | None = None
    schedule_id: UUID | None = None
    fire_at: datetime | None = time_field()
    traceparent: str | None = Field(default=None, sa_type=Text)
    row_version: int = 1
    unsuccessful: str | None = Field(
        default=None,
        sa_type=Text,
        sa_column_args=[Computed("CASE WHEN status IN ('FAILED', 'CANCELED') THEN status END", persisted=True)],
    )
    created_at: datetime = Field(sa_type=TimestampTz)
    started_at: datetime | None = time_field()
    finished_at: datetime | None = time_field()
    updated_at: datetime = now_field()


class TaskAttempt(SQLModel, table=True):
    """One run of a task that has ended. Keyed by fence: a released attempt's number is used again."""

    __tablename__ = "task_attempts"

    task_id: UUID = Field(primary_key=True)
    fence: int = Field(primary_key=True, sa_type=BigInteger)
    attempt: int
    worker_id: str = Field(sa_type=Text)
    outcome: str = Field(sa_type=Text)
    error: Json | None = json_field()
    started_at: datetime = Field(sa_type=TimestampTz)
    finished_at: datetime = now_field()


class TaskEvent(SQLModel, table=True):
    """A state change of a task, in the order it happened; feeds live updates.

    Events are only appended, so a BRIN index finds those after a given id, and costs next to nothing.
    """

    __tablename__ = "task_events"
    __table_args__: ClassVar[tuple[Index, ...]] = (Index("task_events_id", "id", postgresql_using="brin"),)

    task_id: UUID = Field(primary_key=True)
    id: int | None = Field(default=None, sa_type=BigInteger, sa_column_args=[Identity(always=True)], primary_key=True)
    owner_id: UUID
    kind: str = Field(sa_type=Text)
    attempt: int
    data: Json | None = json_field()
    created_at: datetime = now_field()


class TaskLog(SQLModel, table=True):
    """A line that a handler logged; `line` counts within the attempt, whose fence makes it unique."""

    __tablename__ = "task_logs"
    __table_args__: ClassVar[tuple[Index, ...]] = (
        Index("task_logs_line", "task_id", "fence", "line", unique=True, postgresql_where=text("line IS NOT NULL")),
    )

    task_id: UUID = Field(primary_key=True)
    id: int | None = Field(default=None, sa_type=BigInteger, sa_column_args=[Identity(always=True)], primary_key=True)
    attempt: int
    fence: int | None = Field(default=None, sa_type=BigInteger)
    line: int | None = None
    level: str = Field(sa_type=Text)
    message: str = Field(sa_type=Text)
    fields: Json | None = json_field()
    created_at: datetime = now_field()


class IdempotencyKey(SQLModel, table=True):
    """A request's key, for 24 hours: the same key and request get the same answer."""

    __tablename__ = "idempotency_keys"

    owner_id: UUID = Field(primary_key=True)
    key: str = Field(primary_key=True, sa_type=Text)
    request_hash: bytes
    task_id: UUID | None = None
    response: Json | None = json_field()
    created_at: datetime = now_field()
    expires_at: datetime = Field(sa_type=TimestampTz, index=True)
