"""What the API answers, as far as a client acts on it; members that are not named here are kept for `to_json`."""

from datetime import datetime
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

FINAL = frozenset({"COMPLETED", "FAILED", "CANCELED"})

I = TypeVar("I")  # noqa: E741 - an item


class Wire(BaseModel):
    """A JSON object of the API. Members may be added at any time; enumerations are plain strings for that reason."""

    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True)

    def to_json(self) -> dict[str, Any]:
        """Return the object as the API sent it."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


class Items(Wire, Generic[I]):
    """A list that is answered whole."""

    items: list[I]


class Page(Items[I]):
    """A part of a list; `next_cursor` leads to the next one. `total` where it was asked for."""

    next_cursor: str | None
    total: int | None = None
    total_kind: str | None = None


class Stretch(Items[I]):
    """A part of a history, oldest first; it goes on after `next_after`, and `more` says that there is something."""

    next_after: int
    more: bool


class User(Wire):
    """An account."""

    id: str
    email: str
    role: str
    created_at: datetime
    last_login_at: datetime | None = None
    disabled: bool = False


class TokenPair(Wire):
    """What a login or a refresh answers; `expires_in` is the access token's, in seconds."""

    access_token: str
    refresh_token: str
    expires_in: int


class Session(Wire):
    """A login that can go on; `current` is that of the access token."""

    id: str
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    user_agent: str
    address: str
    current: bool


class ApiKey(Wire):
    """A key for programs; `hint` is how it begins."""

    id: str
    name: str
    hint: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None


class NewApiKey(ApiKey):
    """A key just made; `key` is shown this once."""

    key: str


class SecurityEvent(Wire):
    """Something that happened to an account."""

    id: str
    kind: str
    user_id: str | None
    actor_id: str | None
    address: str
    created_at: datetime
    data: dict[str, Any]


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
    status: str
    state: str
    payload: dict[str, Any]
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    progress: Progress | None
    attempt: int
    max_attempts: int
    cancel_requested: bool
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    priority: int = 0
    tags: list[str] = []
    version: int = 0

    @property
    def has_ended(self) -> bool:
        """Whether nothing will change any more by itself."""
        return self.status in FINAL

    @property
    def etag(self) -> str:
        """Return the version that was read, for `if_match`."""
        return f'"{self.version}"'


class CreatedTask(Wire):
    """What a batch says of a task that it made."""

    id: str
    state: str


class BatchItem(Wire):
    """What became of one item of a batch: `status` is that of HTTP, with the task or the problem."""

    status: int
    task: CreatedTask | None = None
    problem: dict[str, Any] | None = None


class BatchResult(Items[BatchItem]):
    """What became of each item, in their order, and how many tasks were made."""

    created: int


class Attempt(Wire):
    """An attempt that has ended."""

    attempt: int
    outcome: str
    error: dict[str, Any] | None
    worker_id: str
    started_at: datetime
    finished_at: datetime


class TaskFile(Wire):
    """A file that a task made; `size` in bytes."""

    name: str
    media_type: str
    size: int


class TaskEvent(Wire):
    """What happened to a task; `status` is what it became, `data` is said by the kind."""

    task_id: str
    kind: str
    id: int | None = None
    attempt: int | None = None
    status: str | None = None
    at: datetime | None = None
    data: dict[str, Any] | None = None
    progress: Progress | None = None


class LogLine(Wire):
    """A line that a handler logged."""

    id: int
    attempt: int
    level: str
    message: str
    fields: dict[str, Any] | None
    at: datetime


class BulkRetry(Wire):
    """What became of many FAILED tasks."""

    retried: int
    skipped: int


class BulkCancel(Wire):
    """What became of many unfinished tasks."""

    canceled: int
    asked: int


class TaskType(Wire):
    """A task type; the schemas are JSON Schema."""

    name: str
    summary: str
    timeout_s: int
    payload_schema: dict[str, Any]
    result_schema: dict[str, Any] | None


class Schedule(Wire):
    """A schedule; `next_firings` only where one is asked for alone."""

    id: str
    name: str
    cron: str
    timezone: str
    task: dict[str, Any]
    paused: bool
    paused_reason: str | None
    next_fire_at: datetime | None
    last_fire_at: datetime | None
    next_firings: list[datetime] | None = None


class Queue(Wire):
    """A queue; `oldest_age_s` is None when nothing waits."""

    name: str
    paused: bool
    waiting: int
    running: int
    oldest_age_s: float | None


class Worker(Wire):
    """A process that runs tasks; `tasks` only where one is asked for alone."""

    id: str
    name: str
    hostname: str
    queues: list[str]
    slots: int
    busy: int
    state: str
    version: str
    heartbeat_age_s: float
    tasks: list[dict[str, Any]] | None = None


class Stats(Wire):
    """Figures over the tasks of a window."""

    start: datetime = Field(alias="from")
    to: datetime
    totals: dict[str, int]
    types: list[dict[str, Any]]
    failures: list[dict[str, Any]]
    throughput: list[dict[str, Any]]
    wait_s: dict[str, float | None]
    run_s: dict[str, float | None]


class Webhook(Wire):
    """An address that events are sent to; `secret` only when it was just made."""

    id: str
    url: str
    kinds: list[str]
    types: list[str]
    queues: list[str]
    disabled: bool
    disabled_reason: str | None
    failing_since: datetime | None
    created_at: datetime
    secret: str | None = None


class Delivery(Wire):
    """An event on its way to a webhook; `response` is that of the last attempt."""

    id: str
    webhook_id: str
    state: str
    kind: str
    task_id: str | None
    attempts: int
    next_attempt_at: datetime | None
    delivered_at: datetime | None
    response: dict[str, Any] | None
    created_at: datetime


class Health(Wire):
    """Whether the API can serve; `status` is "degraded" while Redis is away."""

    status: str
