"""Answers of /queues."""

from datetime import datetime

from pydantic import BaseModel


class QueueResource(BaseModel):
    """A queue: `waiting` counted up to 10,000, `oldest_age_s` for how long its first task has been waiting.

    `finished_per_minute` is of the last minute, up to two seconds old.
    """

    name: str
    paused: bool
    paused_at: datetime | None
    waiting: int
    running: int
    oldest_age_s: float | None
    finished_per_minute: float


class QueueList(BaseModel):
    """Up to 100 queues, by name."""

    items: list[QueueResource]
