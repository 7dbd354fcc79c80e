"""Query and answers of /workers."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field


class WorkerListQuery(BaseModel):
    """GET /workers."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=100, ge=1, le=100)
    cursor: str | None = Field(default=None, max_length=300, pattern=r"^[\x21-\x7e]+$")


class WorkerResource(BaseModel):
    """A worker: `lost` is one that has said nothing for 45 seconds; its tasks go to others when their leases end."""

    id: str
    name: str
    hostname: str
    pid: int
    queues: list[str]
    slots: int
    busy: int
    state: Literal["running", "draining", "lost"]
    version: str
    started_at: datetime
    heartbeat_at: datetime
    heartbeat_age_s: float


class RunningTask(BaseModel):
    """A task that a worker runs."""

    id: UUID
    owner_id: UUID
    type: str
    title: str
    queue: str
    attempt: int
    claimed_at: datetime
    timeout_s: int
    lease_expires_at: datetime
    progress: dict[str, Any] | None
    cancel_requested: bool


class WorkerDetail(WorkerResource):
    """A worker with the tasks that it runs, the longest first."""

    tasks: list[RunningTask]


class WorkerList(BaseModel):
    """A page of workers, by id."""

    items: list[WorkerResource]
    next_cursor: str | None
