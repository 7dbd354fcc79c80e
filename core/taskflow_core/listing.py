"""Lists of tasks: what a filter chooses, a page at a time, and how many there are.

A page costs the same at ten thousand tasks and at ten million. What an index serves (owner, status, schedule, batch,
time of creation, the beginning of an id) chooses among all tasks; everything else is compared row by row, for at most
LOOKED_THROUGH tasks a page. A page may then hold fewer than it could, or none, and still have a next one (AIP-158).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ClauseElement, ColumnElement, Executable, Select, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import aliased
from sqlalchemy.sql.compiler import SQLCompiler
from sqlmodel import col

from taskflow_core.actors import Actor
from taskflow_core.identifiers import first_id
from taskflow_core.lifecycle import TaskStatus
from taskflow_core.models.tasks import Task

COUNT_LIMIT = 10_000
LOOKED_THROUGH = 50_000
MIN_ID_CHARACTERS = 8  # hexadecimal digits that count as the beginning of an id
ID_DIGITS = 32
HEX = frozenset("0123456789abcdef")
MILLISECOND = timedelta(milliseconds=1)  # what the time inside an id can tell
UNSUCCESSFUL = frozenset({TaskStatus.FAILED, TaskStatus.CANCELED})
OPEN = frozenset({TaskStatus.PENDING, TaskStatus.RUNNING})


class Order(StrEnum):
    """Which tasks come first, by their creation."""

    NEWEST = "newest"
    OLDEST = "oldest"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFilter:
    """Which tasks a list holds; None and () mean any. `owner_id` is heeded only for actors who see all."""

    status: Sequence[TaskStatus] = ()
    type: Sequence[str] = ()
    queue: str | None = None
    tag: str | None = None
    q: str | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None
    finished_from: datetime | None = None
    finished_to: datetime | None = None
    owner_id: UUID | None = None
    schedule_id: UUID | None = None
    batch_id: UUID | None = None
    error_code: str | None = None
    order: Order = Order.NEWEST


class Page(NamedTuple):
    """Tasks, and the id after which the next page starts (None at the end)."""

    tasks: list[Task]
    next_after: UUID | None


class Total(NamedTuple):
    """How many tasks there are; `kind` says how that is meant: exact, at_least or estimate."""

    tasks: int
    kind: str


Conditions = list[ColumnElement[bool]]


class _Explain(Executable, ClauseElement):
    """EXPLAIN of a statement, as one JSON document."""

    inherit_cache = False

    def __init__(self, statement: Select[Any]) -> None:
        self.statement = statement


@compiles(_Explain)
def _compile_explain(element: _Explain, compiler: SQLCompiler, **options: Any) -> str:
    return "EXPLAIN (FORMAT JSON) " + compiler.process(element.statement, **options)


async def list_after(
    session: AsyncSession, filters: TaskFilter, *, actor: Actor, limit: int, after: UUID | None
) -> Page:
    """Return a page of tasks that come after the given id, in the filter's order."""
    served = _reach(actor) + _served(filters, actor) + _beyond(after, filters.order)
    first = select(Task).where(*served).order_by(_by_id(Task, filters.order))
    if not _compared(filters, Task):
        found = list((await session.execute(first.limit(limit + 1))).scalars())
        return Page(found[:limit], found[limit - 1].id if len(found) > limit else None)
    seen = aliased(Task, first.limit(LOOKED_THROUGH).subquery())
    matching = select(seen).where(*_compared(filters, seen)).order_by(_by_id(seen, filters.order)).limit(limit + 1)
    found = list((await session.execute(matching)).scalars())
    if len(found) > limit:
        return Page(found[:limit], found[limit - 1].id)
    last = first.with_only_columns(col(Task.id)).offset(LOOKED_THROUGH - 1).limit(1)
    return Page(found, (await session.execute(last)).scalar_one_or_none())


async def list_numbered(
    session: AsyncSession, filters: TaskFilter, *, actor: Actor, limit: int, page: int
) -> list[Task]:
    """Return page number `page`, from 1."""
    rows = select(Task).where(*chosen_by(filters, actor)).order_by(_by_id(Task, filters.order))
    return list((await session.execute(rows.offset((page - 1) * limit).limit(limit))).scalars())


async def count(session: AsyncSession, filters: TaskFilter, *, actor: Actor) -> Total:
    """Count the tasks of a filter, up to COUNT_LIMIT."""
    chosen = select(col(Task.id)).where(*chosen_by(filters, actor)).limit(COUNT_LIMIT)
    found = (await session.execute(select(func.count()).select_from(chosen.subquery()))).scalar_one()
    return Total(found, "exact" if found < COUNT_LIMIT else "at_least")


async def estimate(session: AsyncSession, filters: TaskFilter, *, actor: Actor) -> Total:
    """Return how many tasks PostgreSQL's planner expects the filter to choose."""
    plan = (await session.execute(_Explain(select(col(Task.id)).where(*chosen_by(filters, actor))))).scalar_one()
    return Total(int(plan[0]["Plan"]["Plan Rows"]), "estimate")


def chosen_by(filters: TaskFilter, actor: Actor) -> Conditions:
    """Return the conditions on tasks that a filter chooses, within the reach of the actor."""
    return _reach(actor) + _served(filters, actor) + _compared(filters, Task)


def _reach(actor: Actor) -> Conditions:
    return [] if actor.sees_all else [col(Task.owner_id) == actor.user_id]


def _served(filters: TaskFilter, actor: Actor) -> Conditions:
    """Return the conditions that indexes serve, written so that the partial ones do."""
    owner_id = filters.owner_id if actor.sees_all else None
    wanted = (
        (owner_id, lambda value: [col(Task.owner_id) == value]),
        (filters.schedule_id, lambda value: [col(Task.schedule_id) == value]),
        (filters.batch_id, lambda value: [col(Task.batch_id) == value]),
        (filters.created_from, lambda value: [col(Task.created_at) >= value, col(Task.id) >= first_id(value)]),
        (
            filters.created_to,
            lambda value: [col(Task.created_at) < value, col(Task.id) < first_id(value + MILLISECOND)],
        ),
        (_id_range(filters.q), lambda value: [col(Task.id).between(*value)]),
    )
    served = [condition for value, conditions in wanted if value is not None for condition in conditions(value)]
    statuses = frozenset(filters.status)
    if statuses and statuses <= UNSUCCESSFUL:
        served.append(col(Task.unsuccessful).in_(sorted(statuses)))
    if statuses and statuses <= OPEN:
        served += [col(Task.status).in_(sorted(statuses)), col(Task.finished_at).is_(None)]
    return served


def _compared(filters: TaskFilter, task: type[Task]) -> Conditions:
    """Return the conditions that are compared row by row."""
    statuses = frozenset(filters.status)
    mixed = not (statuses <= UNSUCCESSFUL or statuses <= OPEN)
    words = filters.q if _id_range(filters.q) is None else None
    wanted = (
        (sorted(statuses) if mixed else None, lambda value: col(task.status).in_(value)),
        (filters.type or None, lambda value: col(task.type).in_(value)),
        (filters.queue, lambda value: col(task.queue) == value),
        (filters.tag, lambda value: col(task.tags).contains([value])),
        (filters.finished_from, lambda value: col(task.finished_at) >= value),
        (filters.finished_to, lambda value: col(task.finished_at) < value),
        (filters.error_code, lambda value: col(task.error)["code"].astext == value),
        (words, lambda value: _says(task, value)),
    )
    return [condition(value) for value, condition in wanted if value is not None]


def _says(task: type[Task], words: str) -> ColumnElement[bool]:
    """Whether the title, the dedup_key or the error holds these words, in any case."""
    error = col(task.error)
    texts = (col(task.title), col(task.dedup_key), error["code"].astext, error["message"].astext)
    return or_(*(text.icontains(words, autoescape=True) for text in texts))


def _id_range(q: str | None) -> tuple[UUID, UUID] | None:
    """Return the first and the last id that begin so, or None when that is not how ids begin."""
    digits = (q or "").lower().replace("-", "")
    if not MIN_ID_CHARACTERS <= len(digits) <= ID_DIGITS or not HEX.issuperset(digits):
        return None
    return UUID(digits.ljust(ID_DIGITS, "0")), UUID(digits.ljust(ID_DIGITS, "f"))


def _beyond(after: UUID | None, order: Order) -> Conditions:
    if after is None:
        return []
    return [col(Task.id) < after if order is Order.NEWEST else col(Task.id) > after]


def _by_id(task: type[Task], order: Order) -> ColumnElement[Any]:
    return col(task.id).desc() if order is Order.NEWEST else col(task.id).asc()
