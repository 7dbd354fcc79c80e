"""Ids that sort by time: UUID version 7 (RFC 9562), whose first 48 bits are Unix milliseconds."""

from datetime import UTC, datetime
from uuid import UUID

from uuid_utils.compat import uuid7


def new_id() -> UUID:
    """Return a new id, later than every id this process made before."""
    return uuid7()


def time_of(identifier: UUID) -> datetime:
    """Return the moment inside the id, UTC, to the millisecond."""
    return datetime.fromtimestamp((identifier.int >> 80) / 1000, tz=UTC)
