"""The one clock of this process. Deadlines of tasks are compared with the database's clock, not with this one."""

from datetime import UTC, datetime


def utc_now() -> datetime:
    """Return the current time, UTC and time zone aware."""
    return datetime.now(UTC)
