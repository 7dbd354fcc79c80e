"""Who may ask: users and the refresh tokens of their sessions."""

from datetime import datetime
from enum import StrEnum
from typing import ClassVar
from uuid import UUID

from sqlalchemy import ForeignKey, Index, LargeBinary, Text, text
from sqlmodel import Field, SQLModel

from taskflow_core.models.columns import TimestampTz, now_field, time_field


class Role(StrEnum):
    """What a user may do: own tasks; all tasks, queues and workers; users too."""

    USER = "USER"
    OPERATOR = "OPERATOR"
    ADMIN = "ADMIN"


class User(SQLModel, table=True):
    """An account. `email` is stored in lower case; `token_version` ends all access tokens when raised."""

    __tablename__ = "users"

    id: UUID = Field(primary_key=True)
    email: str = Field(sa_type=Text, unique=True)
    password_hash: str = Field(sa_type=Text)
    role: str = Field(default=Role.USER, sa_type=Text)
    token_version: int = 0
    disabled_at: datetime | None = time_field()
    last_login_at: datetime | None = time_field()
    created_at: datetime = now_field()
    updated_at: datetime = now_field()


class RefreshToken(SQLModel, table=True):
    """One link in a family of refresh tokens: a login starts a family, each refresh adds a child."""

    __tablename__ = "refresh_tokens"
    __table_args__: ClassVar[tuple[Index, ...]] = (
        Index("refresh_tokens_unused", "user_id", postgresql_where=text("used_at IS NULL AND revoked_at IS NULL")),
    )

    id: UUID = Field(primary_key=True)
    family_id: UUID = Field(index=True)
    user_id: UUID = Field(sa_column_args=[ForeignKey("users.id", ondelete="CASCADE")], index=True)
    token_hash: bytes = Field(sa_type=LargeBinary, unique=True)
    parent_id: UUID | None = None
    user_agent: str = Field(default="", sa_type=Text)
    address: str = Field(default="", sa_type=Text)
    created_at: datetime = now_field()
    expires_at: datetime = Field(sa_type=TimestampTz)
    family_expires_at: datetime = Field(sa_type=TimestampTz, index=True)
    used_at: datetime | None = time_field()
    revoked_at: datetime | None = time_field()
