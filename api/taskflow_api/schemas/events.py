"""Events, and the lines that handlers log."""

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from taskflow_core.events import ANY_ID
from taskflow_core.lifecycle import TaskStatus

MAX_NAME = 100

After = Annotated[int, Field(ge=0, le=ANY_ID, description="only what has a greater id")]
Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]


class PageQuery(BaseModel):
    """Where a page starts, and how long it is."""

    model_config = ConfigDict(extra="forbid")

    after: After | None = None
    limit: int = Field(default=100, ge=1, le=1000)


class TaskEventsQuery(PageQuery):
    """Which events of a task to return."""

    kind: Name | None = None


class EventsQuery(TaskEventsQuery):
    """Which events to return."""

    type: Name | None = None
    queue: Name | None = None
    task: UUID | None = None


class LinesQuery(PageQuery):
    """Which lines to return; `level` and those above."""

    level: Literal["debug", "info", "warning", "error", "critical"] = "debug"
    attempt: int | None = Field(default=None, ge=1, le=2**31 - 1)


class EventResource(BaseModel):
    """A change of a task; `status` is what it became, null when it stayed what it was."""

    id: int
    task_id: UUID
    type: str | None
    queue: str | None
    kind: str
    attempt: int
    status: TaskStatus | None
    at: AwareDatetime
    data: dict[str, Any] | None


class EventList(BaseModel):
    """A page of events, oldest first. Go on after `next_after`; `more` says that there is something already."""

    items: list[EventResource]
    next_after: int
    more: bool


class LogLineResource(BaseModel):
    """A line that a handler logged."""

    id: int
    attempt: int
    level: str
    message: str
    fields: dict[str, Any] | None
    at: AwareDatetime


class LogLineList(BaseModel):
    """A page of lines, oldest first. Go on after `next_after`; `more` says that there is something already."""

    items: list[LogLineResource]
    next_after: int
    more: bool
