"""What the task types of the box leave behind: sent mail, files, synced records."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, LargeBinary, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from taskflow_core.models.columns import Json, now_field, time_field


class EmailSend(SQLModel, table=True):
    """A mail that is about to be sent (`sent_at` is null) or was: a retry looks here first.

    `recipients` holds {"address": ..., "refused": the server's words or null} for each.
    """

    __tablename__ = "email_sends"

    task_id: UUID = Field(primary_key=True, sa_column_args=[ForeignKey("tasks.id", ondelete="CASCADE")])
    message_id: str = Field(sa_type=Text)
    recipients: list[Json] = Field(sa_type=JSONB)
    sent_at: datetime | None = time_field()
    created_at: datetime = now_field()


class TaskFile(SQLModel, table=True):
    """A piece of a file that a task made; pieces of one name are read in the order of `seq`."""

    __tablename__ = "task_files"

    task_id: UUID = Field(primary_key=True, sa_column_args=[ForeignKey("tasks.id", ondelete="CASCADE")])
    name: str = Field(primary_key=True, sa_type=Text)
    seq: int = Field(primary_key=True)
    media_type: str = Field(sa_type=Text)
    size: int = Field(sa_type=BigInteger)
    content: bytes = Field(sa_type=LargeBinary)
    created_at: datetime = now_field()


class SyncedRecord(SQLModel, table=True):
    """A record that SYNC pulled into a collection of its owner; `digest` is the sha256 of its canonical JSON."""

    __tablename__ = "synced_records"

    owner_id: UUID = Field(primary_key=True, sa_column_args=[ForeignKey("users.id", ondelete="CASCADE")])
    collection: str = Field(primary_key=True, sa_type=Text)
    key: str = Field(primary_key=True, sa_type=Text)
    data: Json = Field(sa_type=JSONB)
    digest: bytes = Field(sa_type=LargeBinary)
    task_id: UUID
    created_at: datetime = now_field()
    updated_at: datetime = now_field()


class SyncSource(SQLModel, table=True):
    """What a source said of its content at the last completed sync, for conditional requests."""

    __tablename__ = "sync_sources"

    owner_id: UUID = Field(primary_key=True, sa_column_args=[ForeignKey("users.id", ondelete="CASCADE")])
    collection: str = Field(primary_key=True, sa_type=Text)
    url: str = Field(primary_key=True, sa_type=Text)
    etag: str | None = Field(default=None, sa_type=Text)
    last_modified: str | None = Field(default=None, sa_type=Text)
    updated_at: datetime = now_field()
