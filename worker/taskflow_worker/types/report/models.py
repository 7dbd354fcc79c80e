"""REPORT: what became of the owner's tasks in a period, as CSV, XLSX, HTML and PDF."""

from datetime import datetime, timedelta
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from taskflow_core.lifecycle import TaskStatus

Format = Literal["csv", "xlsx", "html", "pdf"]
GroupBy = Literal["hour", "day"]
MAX_PERIOD = timedelta(days=366)
MAX_BY_HOUR = timedelta(days=31)
AUTO_BY_HOUR = timedelta(days=2)
FIRST_YEAR, LAST_YEAR = 2000, 9000
UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1)}


class Period(BaseModel):
    """From a moment, inclusive, to another, exclusive; both with a time zone."""

    model_config = ConfigDict(extra="forbid", validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)

    from_: AwareDatetime = Field(alias="from")
    to: AwareDatetime

    @model_validator(mode="after")
    def _is_bounded(self) -> "Period":
        if self.from_.year < FIRST_YEAR or self.to.year > LAST_YEAR:
            raise ValueError(f"the period must lie between the years {FIRST_YEAR} and {LAST_YEAR}")
        if not timedelta(0) < self.to - self.from_ <= MAX_PERIOD:
            raise ValueError(f"'to' must lie after 'from', by at most {MAX_PERIOD.days} days")
        return self


class ReportPayload(BaseModel):
    """Which tasks, by the time they were created, how grouped, and in which formats."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"title": "Last day", "last": "24h", "format": "html"},
                {
                    "period": {"from": "2026-11-01T00:00:00Z", "to": "2026-12-01T00:00:00Z"},
                    "type": "EMAIL",
                    "status": "FAILED",
                    "group_by": "day",
                    "format": ["xlsx", "pdf"],
                },
            ]
        },
    )

    title: Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")] = (
        "Task report"
    )
    period: Period | None = None
    last: Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,3}[hd]$")] | None = Field(
        default=None, description="Hours or days until now, such as 24h (the default) or 7d.", examples=["24h", "7d"]
    )
    type: Annotated[str, StringConstraints(pattern=r"^[A-Z0-9_]{1,64}$")] | None = None
    queue: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")] | None = None
    status: TaskStatus | None = None
    group_by: GroupBy | None = Field(default=None, description="Left out: hour up to two days, day beyond.")
    format: list[Format] = Field(default=["csv"], min_length=1, max_length=4)

    @field_validator("format", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("format")
    @classmethod
    def _once_each(cls, formats: list[Format]) -> list[Format]:
        return list(dict.fromkeys(formats))

    @model_validator(mode="after")
    def _is_bounded(self) -> "ReportPayload":
        if self.period is not None and self.last is not None:
            raise ValueError("give period or last, not both")
        if self.length() > MAX_PERIOD:
            raise ValueError(f"last: the period is at most {MAX_PERIOD.days} days")
        if self.group_by == "hour" and self.length() > MAX_BY_HOUR:
            raise ValueError(f"group_by: by hour a period is at most {MAX_BY_HOUR.days} days; use day")
        return self

    def length(self) -> timedelta:
        """Return how long the period is."""
        if self.period is not None:
            return self.period.to - self.period.from_
        last = self.last or "24h"
        return int(last[:-1]) * UNITS[last[-1]]

    def bounds(self, now: datetime) -> tuple[datetime, datetime]:
        """Return the period's first moment and the first moment after it."""
        if self.period is not None:
            return self.period.from_, self.period.to
        return now - self.length(), now

    def step(self) -> GroupBy:
        """Return the width of a bar of the timeline."""
        return self.group_by or ("hour" if self.length() <= AUTO_BY_HOUR else "day")


class ReportFile(BaseModel):
    """A file that can be downloaded from the task; `size` in bytes."""

    name: str
    media_type: str
    size: int
    sha256: str


class ReportResult(BaseModel):
    """What was counted and written. `listed` tasks are in the list of tasks, which holds the newest 50,000."""

    files: list[ReportFile]
    rows: int
    listed: int
    totals: dict[str, int]
    period_from: datetime
    period_to: datetime
    first_lines: list[str]
