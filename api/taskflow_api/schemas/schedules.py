"""Bodies, queries and answers of /schedules."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from taskflow_api.schemas.tasks import NO_CONTROLS, TaskTemplate
from taskflow_core.cron import MAX_CHARACTERS, Misfire


class NewScheduleBody(BaseModel):
    """POST /schedules: `cron` has five fields, read in `timezone`; each firing creates a task made of `task`."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=200, pattern=NO_CONTROLS)
    cron: str = Field(max_length=MAX_CHARACTERS, examples=["30 9 * * MON-FRI"])
    timezone: str = Field(default="UTC", max_length=100, examples=["Europe/Berlin"])
    misfire: Misfire = Misfire.SKIP
    task: TaskTemplate


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
