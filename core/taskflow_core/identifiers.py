"""Ids that sort by time: UUID version 7 (RFC 9562), whose first 48 bits are Unix milliseconds."""

from datetime import UTC, datetime
from uuid import UUID

from uuid_utils.compat import uuid7


def new_id() -> UUID:
    """Return a new id, later than every id this process made before."""
    return uuid7()


def first_id(moment: datetime) -> UUID:
    """Return the least id of that millisecond: ids made before it are smaller."""
    return UUID(int=int(moment.timestamp() * 1000) << 80)


def time_of(identifier: UUID) -> datetime:
    """Return the moment inside the id, UTC, to the millisecond."""
    return datetime.fromtimestamp((identifier.int >> 80) / 1000, tz=UTC)
