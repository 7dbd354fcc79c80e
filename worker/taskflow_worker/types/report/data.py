"""The numbers of a report, read in one snapshot; the list of tasks goes to a file on disk, not into memory."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import IO, Any, NamedTuple
from uuid import UUID

import orjson
from sqlalchemy import ColumnElement, Float, Select, Text, case, cast, extract, func, select, true, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from taskflow_core.handlers import Context
from taskflow_core.lifecycle import TaskStatus
from taskflow_core.models.tasks import Task
from taskflow_worker.types.report.models import GroupBy, ReportPayload

LISTED_ROWS = 50_000
BATCH = 1_000
MAX_FAILURE_KINDS = 50
MAX_MESSAGE = 300
STATUSES = [str(status) for status in TaskStatus]


class Spread(NamedTuple):
    """Median, 95th percentile and maximum in seconds; None without a task that ran."""

    p50: float | None
    p95: float | None
    max: float | None


NONE = Spread(None, None, None)


@dataclass(slots=True)
class Group:
    """The tasks of one type, or all: how many in each status, how long they ran and waited (last attempt)."""

    name: str
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STATUSES, 0))
    ran: Spread = NONE
    waited: Spread = NONE

    @property
    def total(self) -> int:
        """Return the number of tasks."""
        return sum(self.counts.values())


class Failure(NamedTuple):
    """A kind of failure: the task type, the error's code, how often, and one message."""

    type: str
    code: str
    times: int
    example: str


class Bar(NamedTuple):
    """One step of the timeline: its start and the tasks created in it, by status."""

    start: datetime
    counts: dict[str, int]


@dataclass(slots=True)
class Summary:
    """All numbers of a report."""

    title: str
    start: datetime
    end: datetime
    made_at: datetime
    step: GroupBy
    filters: dict[str, str]
    total: Group
    types: list[Group]
    failures: list[Failure]
    bars: list[Bar]

    @property
    def listed(self) -> int:
        """Return how many tasks the list holds."""
        return min(self.total.total, LISTED_ROWS)

    @property
    def cut(self) -> str:
        """Return a sentence when the list does not hold all tasks, else an empty text."""
        if self.listed == self.total.total:
            return ""
        return (
            f"Only the newest {self.listed} of {self.total.total} tasks are listed; narrow the period or the filters."
        )


class Row(NamedTuple):
    """A task in the list. Times are ISO 8601 in UTC, durations seconds."""

    id: str
    type: str
    title: str
    queue: str
    status: str
    attempt: int
    created_at: str
    started_at: str | None
    finished_at: str | None
    waited_s: float | None
    ran_s: float | None
    error_code: str | None
    error_message: str | None


async def collect(session: AsyncSession, ctx: Context, payload: ReportPayload, spool: IO[bytes]) -> Summary:
    """Read all numbers, and write the list of tasks to `spool`, newest first.

    The session must be new: its transaction becomes one read-only snapshot.
    """
    await session.connection(execution_options={"isolation_level": "REPEATABLE READ", "postgresql_readonly": True})
    now = (await session.execute(select(func.now()))).scalar_one()
    left_ms = int(max((ctx.deadline - now).total_seconds(), 1) * 1000)
    await session.execute(select(func.set_config("statement_timeout", str(left_ms), true())))
    start, end = payload.bounds(now)
    chosen = _chosen(ctx, payload, start, end)
    types = await _counts(session, chosen)
    total = Group("All types")
    for group in types.values():
        for status, count in group.counts.items():
            total.counts[status] += count
    await _spreads(session, chosen, types, total)
    summary = Summary(
        title=payload.title,
        start=start,
        end=end,
        made_at=now,
        step=payload.step(),
        filters=_filters(payload),
        total=total,
        types=sorted(types.values(), key=lambda group: group.name),
        failures=await _failures(session, chosen),
        bars=await _bars(session, chosen, payload.step(), start, end),
    )
    await _list(session, ctx, chosen, spool)
    return summary


def rows(spool: IO[bytes]) -> Iterator[Row]:
    """Yield the tasks that `collect` listed."""
    spool.seek(0)
    for line in spool:
        yield Row(*json.loads(line))


def _filters(payload: ReportPayload) -> dict[str, str]:
    given = {"type": payload.type, "queue": payload.queue, "status": payload.status}
    return {name: str(value) for name, value in given.items() if value is not None}


def _chosen(ctx: Context, payload: ReportPayload, start: datetime, end: datetime) -> ColumnElement[bool]:
    """Return the condition for the tasks of the report: by id, whose first 48 bits are the time of creation."""
    chosen = (
        (col(Task.owner_id) == ctx.owner_id)
        & (col(Task.id) >= _first_id(start))
        & (col(Task.id) < _first_id(end))
        & (col(Task.id) != ctx.task_id)
    )
    if payload.type is not None:
        chosen &= col(Task.type) == payload.type
    if payload.queue is not None:
        chosen &= col(Task.queue) == payload.queue
    if payload.status is not None:
        chosen &= col(Task.status) == payload.status
    return chosen


def _first_id(moment: datetime) -> UUID:
    return UUID(int=max(int(moment.timestamp() * 1000), 0) << 80)


async def _counts(session: AsyncSession, chosen: ColumnElement[bool]) -> dict[str, Group]:
    groups: dict[str, Group] = {}
    statement = (
        select(col(Task.type), col(Task.status), func.count()).where(chosen).group_by(col(Task.type), col(Task.status))
    )
    for name, status, count in await session.execute(statement):
        groups.setdefault(name, Group(name)).counts[status] = count
    return groups


def _seconds(value: Any) -> ColumnElement[float]:
    return cast(extract("epoch", value), Float)


def _ended() -> ColumnElement[bool]:
    """Return the condition for tasks whose last attempt ran to an end (a canceled one may have waited again)."""
    return col(Task.status).in_([TaskStatus.COMPLETED, TaskStatus.FAILED]) & col(Task.claimed_at).is_not(None)


async def _spreads(session: AsyncSession, chosen: ColumnElement[bool], types: dict[str, Group], total: Group) -> None:
    ran = _seconds(col(Task.finished_at) - col(Task.claimed_at))
    waited = func.greatest(_seconds(col(Task.claimed_at) - col(Task.run_at)), 0)
    statement = (
        select(
            col(Task.type),
            *(func.percentile_cont(at).within_group(ran) for at in (0.5, 0.95)),
            func.max(ran),
            *(func.percentile_cont(at).within_group(waited) for at in (0.5, 0.95)),
            func.max(waited),
        )
        .where(chosen, _ended())
        .group_by(func.grouping_sets(tuple_(col(Task.type)), tuple_()))
    )
    for name, *values in await session.execute(statement):
        group = total if name is None else types[name]
        group.ran, group.waited = Spread(*values[:3]), Spread(*values[3:])


async def _failures(session: AsyncSession, chosen: ColumnElement[bool]) -> list[Failure]:
    code = func.coalesce(col(Task.error)["code"].astext, "unknown")
    message = func.coalesce(func.max(func.left(col(Task.error)["message"].astext, MAX_MESSAGE)), "")
    statement = (
        select(col(Task.type), code, func.count().label("count"), message)
        .where(chosen, col(Task.status) == TaskStatus.FAILED)
        .group_by(col(Task.type), code)
        .order_by(func.count().desc(), col(Task.type), code)
        .limit(MAX_FAILURE_KINDS)
    )
    return [Failure(*row) for row in await session.execute(statement)]


async def _bars(
    session: AsyncSession, chosen: ColumnElement[bool], step: GroupBy, start: datetime, end: datetime
) -> list[Bar]:
    start_of = func.date_trunc(step, col(Task.created_at), "UTC")
    statement = select(start_of, col(Task.status), func.count()).where(chosen).group_by(start_of, col(Task.status))
    bars: dict[datetime, Bar] = {}
    width = timedelta(hours=1) if step == "hour" else timedelta(days=1)
    moment = start.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    moment = moment if step == "hour" else moment.replace(hour=0)
    while moment < end:
        bars[moment] = Bar(moment, dict.fromkeys(STATUSES, 0))
        moment += width
    for found, status, count in await session.execute(statement):
        if found in bars:
            bars[found].counts[status] = count
    return list(bars.values())


def _listing(chosen: ColumnElement[bool]) -> Select[Any]:
    failed = col(Task.error).is_not(None)
    return (
        select(
            cast(col(Task.id), Text),
            col(Task.type),
            col(Task.title),
            col(Task.queue),
            col(Task.status),
            col(Task.attempt),
            col(Task.created_at),
            col(Task.started_at),
            col(Task.finished_at),
            func.greatest(
                _seconds(col(Task.claimed_at) - col(Task.run_at)), case((col(Task.claimed_at).is_not(None), 0))
            ),
            case((_ended(), _seconds(col(Task.finished_at) - col(Task.claimed_at)))),
            case((failed, func.left(col(Task.error)["code"].astext, MAX_MESSAGE))),
            case((failed, func.left(col(Task.error)["message"].astext, MAX_MESSAGE))),
        )
        .where(chosen)
        .order_by(col(Task.id).desc())
        .limit(LISTED_ROWS)
    )


async def _list(session: AsyncSession, ctx: Context, chosen: ColumnElement[bool], spool: IO[bytes]) -> None:
    """Stream the tasks through a cursor on the server."""
    result = await session.stream(_listing(chosen), execution_options={"yield_per": BATCH})
    async for batch in result.partitions():
        ctx.check_cancel()
        spool.writelines(orjson.dumps(list(row), option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE) for row in batch)
