"""Bodies, queries and answers of /tasks and /task-types."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    SkipValidation,
    ValidationInfo,
    field_validator,
)

from taskflow_api.schemas.problems import ProblemDocument
from taskflow_core.lifecycle import TaskStatus

TYPE_PATTERN = r"^[A-Z0-9_]{1,64}$"
QUEUE_PATTERN = r"^[a-z0-9][a-z0-9_.-]{0,63}$"
NO_CONTROLS = r"^[^\x00-\x1f\x7f]*$"
MAX_DELAY_S = 10 * 366 * 86_400
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
LATEST = datetime(2200, 1, 1, tzinfo=UTC)
MAX_ROWS = 10_000
MAX_BATCH = 1000


def _without_repeats(tags: list[str]) -> list[str]:
    return list(dict.fromkeys(tags))


Moment = Annotated[AwareDatetime, Field(ge=EARLIEST, le=LATEST)]
TypeName = Annotated[str, Field(pattern=TYPE_PATTERN)]
QueueName = Annotated[str, Field(pattern=QUEUE_PATTERN)]
Tag = Annotated[str, Field(min_length=1, max_length=64, pattern=NO_CONTROLS)]
ErrorCode = Annotated[str, Field(min_length=1, max_length=200, pattern=NO_CONTROLS)]
Tags = Annotated[list[Tag], Field(max_length=20), AfterValidator(_without_repeats)]


class TaskTemplate(BaseModel):
    """What a task is made of. `payload` is what the type asks for; see GET /task-types."""

    model_config = ConfigDict(extra="forbid")

    type: str = Field(max_length=64, examples=["EMAIL"])
    payload: dict[str, Any]
    title: str = Field(default="", max_length=200, pattern=NO_CONTROLS)
    queue: QueueName = "default"
    priority: int = Field(default=0, ge=-100, le=100, strict=True)
    max_attempts: int = Field(default=3, ge=1, le=100, strict=True)
    timeout_s: int | None = Field(default=None, ge=1, le=86_400, strict=True)
    dedup_key: str | None = Field(default=None, min_length=1, max_length=255, pattern=NO_CONTROLS)
    tags: Tags = []


class NewTaskBody(TaskTemplate):
    """POST /tasks: what the task is made of, and when it starts."""

    run_at: Moment | None = None
    delay_s: float | None = Field(default=None, ge=0, le=MAX_DELAY_S, strict=True)

    @field_validator("delay_s")
    @classmethod
    def _one_start(cls, delay_s: float | None, fields: ValidationInfo) -> float | None:
        if delay_s is not None and fields.data.get("run_at") is not None:
            raise ValueError("give run_at or delay_s, not both")
        return delay_s


class TaskState(StrEnum):
    """What a task is shown as: its status, with two states that are computed."""

    SCHEDULED = "SCHEDULED"
    PENDING = "PENDING"
    RETRYING = "RETRYING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"


class BatchBody(BaseModel):
    """POST /tasks:batch. Each item is checked for itself, so that a wrong one does not fail the others."""

    model_config = ConfigDict(extra="forbid")

    items: list[SkipValidation[NewTaskBody]] = Field(min_length=1, max_length=MAX_BATCH)


class CreatedTask(BaseModel):
    """What a batch says of a task that it made; GET /tasks/{id} tells the rest."""

    id: UUID
    state: TaskState
    version: int


class BatchItem(BaseModel):
    """What became of an item: `status` is what POST /tasks would have answered, with the task or the problem."""

    status: int
    task: CreatedTask | None = None
    problem: ProblemDocument | None = None


class BatchResult(BaseModel):
    """What became of each item, in their order, and how many tasks were made."""

    created: int
    items: list[BatchItem]


class ListQuery(BaseModel):
    """GET /tasks: a filter, and either a cursor or a page number."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=20, ge=1, le=100)
    cursor: str | None = Field(default=None, max_length=200)
    page: int | None = Field(default=None, ge=1, le=MAX_ROWS)
    status: TaskStatus | None = None
    type: TypeName | None = None
    queue: QueueName | None = None
    tag: Tag | None = None
    created_from: Moment | None = None
    created_to: Moment | None = None
    owner_id: UUID | None = None
    schedule_id: UUID | None = None
    error_code: ErrorCode | None = None


class FailedFilter(BaseModel):
    """Which FAILED tasks are meant: all that match everything given."""

    model_config = ConfigDict(extra="forbid")

    type: TypeName | None = None
    queue: QueueName | None = None
    tag: Tag | None = None
    created_from: Moment | None = None
    created_to: Moment | None = None
    owner_id: UUID | None = None
    schedule_id: UUID | None = None
    error_code: ErrorCode | None = None


class BulkRetryBody(BaseModel):
    """POST /tasks:bulkRetry; `expected_count` is how many tasks were seen to match."""

    model_config = ConfigDict(extra="forbid")

    filter: FailedFilter
    expected_count: int = Field(ge=1, le=MAX_ROWS, strict=True)


class BulkRetryResult(BaseModel):
    """How many tasks wait again, and how many were left because another one holds their dedup_key."""

    retried: int
    skipped: int


class TaskResource(BaseModel):
    """A task."""

    id: UUID
    type: str
    title: str
    queue: str
    priority: int
    status: TaskStatus
    state: TaskState
    payload: dict[str, Any]
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    progress: dict[str, Any] | None
    tags: list[str]
    attempt: int
    max_attempts: int
    timeout_s: int
    run_at: datetime
    dedup_key: str | None
    schedule_id: UUID | None
    fire_at: datetime | None
    cancel_requested: bool
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    updated_at: datetime
    version: int
    owner_id: UUID


class TaskList(BaseModel):
    """A page of tasks, newest first; `total` and `page` with page numbers only, counted up to 10,000."""

    items: list[TaskResource]
    next_cursor: str | None
    total: int | None
    page: int | None
    limit: int


class AttemptResource(BaseModel):
    """An attempt that has ended."""

    attempt: int
    outcome: str
    error: dict[str, Any] | None
    worker_id: str
    started_at: datetime
    finished_at: datetime


class AttemptList(BaseModel):
    """The attempts of a task, oldest first."""

    items: list[AttemptResource]


class FileResource(BaseModel):
    """A file that a task made; `size` in bytes."""

    name: str
    media_type: str
    size: int
    created_at: datetime


class FileList(BaseModel):
    """The files of a task, by name."""

    items: list[FileResource]


class TaskTypeResource(BaseModel):
    """A task type; the schemas are JSON Schema 2020-12."""

    name: str
    summary: str
    timeout_s: int
    payload_schema: dict[str, Any]
    result_schema: dict[str, Any] | None


class TaskTypeList(BaseModel):
    """The task types that are installed, by name."""

    items: list[TaskTypeResource]
