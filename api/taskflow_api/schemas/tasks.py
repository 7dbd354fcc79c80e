"""Bodies, queries and answers of /tasks and /task-types."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SkipValidation,
    ValidationInfo,
    field_validator,
    model_validator,
)

from taskflow_api.schemas.documented import given, only_given
from taskflow_api.schemas.problems import ProblemDocument
from taskflow_core.lifecycle import TaskStatus
from taskflow_core.listing import Order

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


def _one_start(delay_s: float, fields: ValidationInfo) -> float:
    if fields.data.get("run_at") is not None:
        raise ValueError("give run_at or delay_s, not both")
    return delay_s


Moment = Annotated[AwareDatetime, Field(ge=EARLIEST, le=LATEST)]
TypeName = Annotated[str, Field(pattern=TYPE_PATTERN)]
QueueName = Annotated[str, Field(pattern=QUEUE_PATTERN)]
Tag = Annotated[str, Field(min_length=1, max_length=64, pattern=NO_CONTROLS)]
ErrorCode = Annotated[str, Field(min_length=1, max_length=200, pattern=NO_CONTROLS)]
Title = Annotated[str, Field(max_length=200, pattern=NO_CONTROLS)]
Priority = Annotated[int, Field(ge=-100, le=100, strict=True)]
MaxAttempts = Annotated[int, Field(ge=1, le=100, strict=True)]
Timeout = Annotated[int, Field(ge=1, le=86_400, strict=True)]
DedupKey = Annotated[str, Field(min_length=1, max_length=255, pattern=NO_CONTROLS)]
Words = Annotated[str, Field(min_length=1, max_length=100, pattern=NO_CONTROLS)]
Delay = Annotated[float, Field(ge=0, le=MAX_DELAY_S, strict=True), AfterValidator(_one_start)]
Tags = Annotated[list[Tag], Field(max_length=20), AfterValidator(_without_repeats)]


class TaskTemplate(BaseModel):
    """What a task is made of. `payload` is what the type asks for; see GET /task-types."""

    model_config = ConfigDict(extra="forbid")

    type: str = Field(max_length=64, examples=["EMAIL"])
    payload: dict[str, Any]
    title: Title = ""
    queue: QueueName = "default"
    priority: Priority = 0
    max_attempts: MaxAttempts = 3
    timeout_s: Timeout | None = None
    dedup_key: DedupKey | None = None
    tags: Tags = Field(default_factory=list, json_schema_extra={"default": []})  # a literal is copied deeply each time


class NewTaskBody(TaskTemplate):
    """POST /tasks: what the task is made of, and when it starts."""

    run_at: Moment | None = None
    delay_s: Delay | None = None


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


class Changes(BaseModel):
    """Fields of a task that may be given anew; what is left out stays as it is."""

    model_config = ConfigDict(extra="forbid")

    title: Title = ""
    tags: Tags = []
    queue: QueueName = "default"
    priority: Priority = 0
    max_attempts: MaxAttempts = 3
    timeout_s: Timeout = 300
    run_at: Moment | None = None
    delay_s: Delay | None = None


class TaskEdit(Changes):
    """PATCH /tasks/{id}: `title` and `tags` at any time, the rest while the task is PENDING."""

    model_config = ConfigDict(json_schema_extra=only_given)

    _some_time = field_validator("run_at", "delay_s", mode="before")(given)

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError(f"give at least one of: {', '.join(type(self).model_fields)}")
        return self


class CloneBody(Changes):
    """POST /tasks/{id}:clone: what the copy has of its own. It starts at once, and takes no dedup_key along."""

    payload: dict[str, Any] = {}
    dedup_key: DedupKey | None = None


def _several(value: object) -> object:
    return value if isinstance(value, list) else [value]


Types = Annotated[list[TypeName], BeforeValidator(_several), Field(max_length=20)]


class Filter(BaseModel):
    """Which tasks are meant: all that match everything given; of several types, any."""

    model_config = ConfigDict(extra="forbid")

    type: Types = []
    queue: QueueName | None = None
    tag: Tag | None = None
    q: Words | None = None
    created_from: Moment | None = None
    created_to: Moment | None = None
    owner_id: UUID | None = None
    schedule_id: UUID | None = None
    batch_id: UUID | None = None
    error_code: ErrorCode | None = None


class Counting(StrEnum):
    """How `total` is made."""

    EXACT = "exact"
    ESTIMATE = "estimate"


class ListQuery(Filter):
    """GET /tasks: a filter, and either a cursor or a page number.

    `q` is the beginning of an id (8 or more of its characters), or words in the title, dedup_key or error.
    """

    limit: int = Field(default=20, ge=1, le=100)
    cursor: str | None = Field(default=None, max_length=200)
    page: int | None = Field(default=None, ge=1, le=MAX_ROWS)
    order: Order = Order.NEWEST
    count: Counting | None = None
    status: Annotated[list[TaskStatus], Field(max_length=len(TaskStatus))] = []
    finished_from: Moment | None = None
    finished_to: Moment | None = None


class BulkRetryBody(BaseModel):
    """POST /tasks:bulkRetry; `expected_count` is how many FAILED tasks were seen to match."""

    model_config = ConfigDict(extra="forbid")

    filter: Filter
    expected_count: int = Field(ge=1, le=MAX_ROWS, strict=True)


class UnfinishedFilter(Filter):
    """Which unfinished tasks are meant: those that wait, those that run, or both."""

    status: Annotated[
        list[Literal[TaskStatus.PENDING, TaskStatus.RUNNING]], BeforeValidator(_several), Field(max_length=2)
    ] = []


class BulkCancelBody(BaseModel):
    """POST /tasks:bulkCancel; `expected_count` is how many unfinished tasks were seen to match."""

    model_config = ConfigDict(extra="forbid")

    filter: UnfinishedFilter
    expected_count: int = Field(ge=1, le=MAX_ROWS, strict=True)


class BulkCancelResult(BaseModel):
    """How many tasks are CANCELED, and how many run and were asked to stop."""

    canceled: int
    asked: int


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
    """A page of tasks. `total` is counted up to 10,000 (`at_least`) or estimated, where `count` or `page` asked."""

    items: list[TaskResource]
    next_cursor: str | None
    total: int | None
    total_kind: Literal["exact", "at_least", "estimate"] | None
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
