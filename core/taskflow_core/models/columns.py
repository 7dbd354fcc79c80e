"""Column types and fields that the tables share."""

from datetime import datetime
from typing import Any

from sqlalchemy import TIMESTAMP, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

Json = dict[str, Any]


class TimestampTz(TIMESTAMP):
    """timestamptz: SQLModel takes a class here, and the plain one drops the time zone."""

    def __init__(self, timezone: bool = True, precision: int | None = None) -> None:
        super().__init__(timezone=timezone)


def now_field() -> datetime:
    """Return a column that the database fills with its own clock."""
    field: datetime = Field(
        default=None, sa_type=TimestampTz, nullable=False, sa_column_kwargs={"server_default": text("now()")}
    )
    return field


def time_field() -> datetime | None:
    """Return a nullable timestamptz column."""
    field: datetime | None = Field(default=None, sa_type=TimestampTz)
    return field


def json_field() -> Json | None:
    """Return a nullable jsonb column."""
    field: Json | None = Field(default=None, sa_type=JSONB)
    return field
