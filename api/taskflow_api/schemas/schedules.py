"""Bodies, queries and answers of /schedules."""

from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from taskflow_api.schemas.documented import only_given
from taskflow_api.schemas.tasks import NO_CONTROLS, TaskTemplate
from taskflow_core.cron import MAX_CHARACTERS, Misfire

ScheduleName = Annotated[str, Field(min_length=1, max_length=200, pattern=NO_CONTROLS)]
Cron = Annotated[str, Field(max_length=MAX_CHARACTERS, examples=["30 9 * * MON-FRI"])]
TimeZone = Annotated[str, Field(max_length=100, examples=["Europe/Berlin"])]


class NewScheduleBody(BaseModel):
    """POST /schedules: `cron` has five fields, read in `timezone`; each firing creates a task made of `task`."""

    model_config = ConfigDict(extra="forbid")

    name: ScheduleName
    cron: Cron
    timezone: TimeZone = "UTC"
    misfire: Misfire = Misfire.SKIP
    task: TaskTemplate


class ScheduleEdit(BaseModel):
    """PATCH /schedules/{id}: what is given changes; `task` as a whole."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=only_given)

    name: ScheduleName = ""
    cron: Cron = ""
    timezone: TimeZone = "UTC"
    misfire: Misfire = Misfire.SKIP
    task: TaskTemplate | None = None

    @field_validator("task", mode="before")
    @classmethod
    def _some_task(cls, task: object) -> object:
        if task is None:
            raise ValueError("leave it out, or give a task")
        return task

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError(f"give at least one of: {', '.join(type(self).model_fields)}")
        return self


class ScheduleListQuery(BaseModel):
    """GET /schedules."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=20, ge=1, le=100)
    cursor: UUID | None = None


class ScheduleResource(BaseModel):
    """A schedule. `paused_reason` says why it paused itself, `next_fire_at` is null while it is paused."""

    id: UUID
    name: str
    cron: str
    timezone: str
    misfire: Misfire
    task: TaskTemplate
    paused: bool
    paused_reason: str | None
    next_fire_at: datetime | None
    last_fire_at: datetime | None
    created_at: datetime
    updated_at: datetime
    owner_id: UUID


class ScheduleDetail(ScheduleResource):
    """A schedule with its next five firings; none while it is paused."""

    next_firings: list[datetime]


class ScheduleList(BaseModel):
    """A page of schedules, newest first."""

    items: list[ScheduleResource]
    next_cursor: UUID | None
