"""API keys, and what happened to accounts and access."""

from datetime import datetime
from typing import ClassVar
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Identity, Index, LargeBinary, Text, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import Field, SQLModel

from taskflow_core.models.columns import Json, TimestampTz, json_field, now_field, time_field


class ApiKey(SQLModel, table=True):
    """A key for programs: only the sha256 of its secret is kept; `hint` is its first characters, for people."""

    __tablename__ = "api_keys"

    id: UUID = Field(primary_key=True)
    owner_id: UUID = Field(sa_column_args=[ForeignKey("users.id", ondelete="CASCADE")], index=True)
    name: str = Field(sa_type=Text)
    hint: str = Field(sa_type=Text)
    key_hash: bytes = Field(sa_type=LargeBinary, unique=True)
    scopes: list[str] = Field(sa_type=ARRAY(Text))
    created_at: datetime = now_field()
    expires_at: datetime = Field(sa_type=TimestampTz)
    last_used_at: datetime | None = time_field()
    revoked_at: datetime | None = time_field()


class SecurityEvent(SQLModel, table=True):
    """Something that happened to an account: `actor_id` did it (null: nobody known), `user_id` is whom it concerns."""

    __tablename__ = "security_events"
    __table_args__: ClassVar[tuple[Index, ...]] = (
        Index("security_events_user", "user_id", text("id DESC")),
        Index("security_events_kind", "kind", text("id DESC")),
        Index("security_events_created", "created_at", postgresql_using="brin"),
    )

    id: int | None = Field(default=None, sa_type=BigInteger, sa_column_args=[Identity(always=True)], primary_key=True)
    kind: str = Field(sa_type=Text)
    actor_id: UUID | None = None
    user_id: UUID | None = None
    address: str = Field(default="", sa_type=Text)
    user_agent: str = Field(default="", sa_type=Text)
    request_id: str = Field(default="", sa_type=Text)
    data: Json | None = json_field()
    created_at: datetime = now_field()
