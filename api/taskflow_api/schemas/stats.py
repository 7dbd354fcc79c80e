"""Query and answer of /stats."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from taskflow_core.lifecycle import TaskStatus


class StatsQuery(BaseModel):
    """GET /stats: of the tasks that were created in the last `window_s` seconds, a minute to a day."""

    model_config = ConfigDict(extra="forbid")

    window_s: int = Field(default=3600, ge=60, le=86_400)


class TypeCounts(BaseModel):
    """The tasks of a type, by status."""

    type: str
    total: int
    pending: int
    running: int
    completed: int
    failed: int
    canceled: int


class CodeCount(BaseModel):
    """How many FAILED tasks have this error code."""

    code: str
    total: int


class Bar(BaseModel):
    """What happened in the `bucket_s` seconds from `at` on."""

    at: datetime
    created: int
    completed: int
    failed: int
    canceled: int


class Percentiles(BaseModel):
    """Seconds that half and 95 % of the attempts stayed under; null without any."""

    p50: float | None
    p95: float | None


class Stats(BaseModel):
    """Figures; `complete` is false where the window held more tasks than are looked at, the newest 200,000."""

    model_config = ConfigDict(populate_by_name=True)

    start: datetime = Field(alias="from")
    to: datetime
    complete: bool
    totals: dict[TaskStatus, int]
    types: list[TypeCounts]
    failures: list[CodeCount]
    bucket_s: int
    throughput: list[Bar]
    wait_s: Percentiles
    run_s: Percentiles
