"""What the API answers, as far as the command line reads it; fields it does not know are kept for --json."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from taskflow_core.lifecycle import FINAL, TaskStatus


class Wire(BaseModel):
    """A JSON object of the API."""

    model_config = ConfigDict(extra="allow", frozen=True)

    def to_json(self) -> dict[str, Any]:
        """Return the object as the API sent it."""
        return self.model_dump(mode="json", exclude_unset=True)


class User(Wire):
    """An account."""

    id: str
    email: str
    role: str


class Tokens(Wire):
    """What a login or a refresh answers."""

    access_token: str
    refresh_token: str


class Progress(Wire):
    """How far an attempt is; `total` is None while unknown."""

    done: int | float
    total: int | float | None = None
    message: str = ""


class Task(Wire):
    """A task; `state` is the status with SCHEDULED and RETRYING told apart from PENDING."""

    id: str
    type: str
    title: str
    queue: str
    status: TaskStatus
    state: str
    payload: dict[str, Any]
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    progress: Progress | None
    attempt: int
    max_attempts: int
    cancel_requested: bool
    created_at: str
    started_at: str | None
    finished_at: str | None

    @property
    def has_ended(self) -> bool:
        """Whether nothing will change any more by itself."""
        return self.status in FINAL


class TaskPage(Wire):
    """A page of a list, newest first."""

    items: list[Task]
    next_cursor: str | None
    total: int | None = None


class TaskFile(Wire):
    """A file that a task made; `size` in bytes."""

    name: str
    media_type: str
    size: int


class TaskFiles(Wire):
    """The files of a task."""

    items: list[TaskFile]


class ScheduledTask(Wire):
    """What each firing of a schedule creates."""

    type: str


class Schedule(Wire):
    """A schedule; `next_firings` only where one is asked for alone."""

    id: str
    name: str
    cron: str
    timezone: str
    task: ScheduledTask
    paused: bool
    paused_reason: str | None
    next_fire_at: str | None
    last_fire_at: str | None
    next_firings: list[str] | None = None


class SchedulePage(Wire):
    """A page of schedules, newest first."""

    items: list[Schedule]
    next_cursor: str | None


class Queue(Wire):
    """A queue; `oldest_age_s` is None when nothing waits."""

    name: str
    paused: bool
    waiting: int
    running: int
    oldest_age_s: float | None


class Queues(Wire):
    """The queues, by name."""

    items: list[Queue]


class BulkRetry(Wire):
    """What became of many FAILED tasks."""

    retried: int
    skipped: int
