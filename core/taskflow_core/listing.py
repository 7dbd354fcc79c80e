"""Lists of tasks: what a filter chooses, a page at a time, and how many there are.

A page costs the same at ten thousand tasks and at ten million. What an index serves (owner, status, schedule, batch,
time of creation, the beginning of an id) chooses among all tasks; everything else is compared row by row, for at most
LOOKED_THROUGH tasks a page. A page may then hold fewer than it could, or none, and still have a next one (AIP-158).

The statements are text, because building them with SQLAlchemy costs more than running them. What a request gives is
always a parameter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

from psycopg import AsyncConnection

from taskflow_core.actors import Actor
from taskflow_core.identifiers import first_id
from taskflow_core.inserts import TaskRow
from taskflow_core.lifecycle import TaskStatus
from taskflow_core.reading import COLUMNS

COUNT_LIMIT = 10_000
LOOKED_THROUGH = 50_000
MIN_ID_CHARACTERS = 8  # hexadecimal digits that count as the beginning of an id
ID_DIGITS = 32
NO_IDS = (None, None)
HEX = frozenset("0123456789abcdef")
MILLISECOND = timedelta(milliseconds=1)  # what the time inside an id can tell
UNSUCCESSFUL = frozenset({TaskStatus.FAILED, TaskStatus.CANCELED})
OPEN = frozenset({TaskStatus.PENDING, TaskStatus.RUNNING})
AS_THEY_ARE = str.maketrans({"\\": r"\\", "%": r"\%", "_": r"\_"})  # what LIKE would not take for itself
TEXTS = ("t.title", "t.dedup_key", "t.error ->> 'code'", "t.error ->> 'message'")
# Conditions on `tasks t`, each by the parameter it is about. Indexes serve the first.
SERVED = {
    "owner_id": "t.owner_id = %(owner_id)s",
    "schedule_id": "t.schedule_id = %(schedule_id)s",
    "batch_id": "t.batch_id = %(batch_id)s",
    "created_from": "t.created_at >= %(created_from)s",
    "created_from_id": "t.id >= %(created_from_id)s",
    "created_to": "t.created_at < %(created_to)s",
    "created_to_id": "t.id < %(created_to_id)s",
    "least_id": "t.id >= %(least_id)s",
    "greatest_id": "t.id <= %(greatest_id)s",
}
COMPARED = {
    "type": "t.type = ANY(%(type)s::text[])",
    "queue": "t.queue = %(queue)s",
    "tag": "t.tags @> ARRAY[%(tag)s::text]",
    "finished_from": "t.finished_at >= %(finished_from)s",
    "finished_to": "t.finished_at < %(finished_to)s",
    "error_code": "t.error ->> 'code' = %(error_code)s",
    "words": f"({' OR '.join(f'{text} ILIKE %(words)s' for text in TEXTS)})",
}


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

    tasks: list[TaskRow]
    next_after: UUID | None


class Total(NamedTuple):
    """How many tasks there are; `kind` says how that is meant: exact, at_least or estimate."""

    tasks: int
    kind: str


class Chosen(NamedTuple):
    """Conditions on `tasks t` that an index serves, others that are compared row by row, and their parameters."""

    served: list[str]
    compared: list[str]
    parameters: dict[str, Any]

    @property
    def where(self) -> str:
        """Return the WHERE of all of them, or nothing."""
        return _where(self.served + self.compared)


Connection: TypeAlias = AsyncConnection[Any]


async def list_after(
    connection: Connection, filters: TaskFilter, *, actor: Actor, limit: int, after: UUID | None
) -> Page:
    """Return a page of tasks that come after the given id, in the filter's order."""
    served, compared, parameters = chosen_by(filters, actor)
    order = _order(filters)
    if after is not None:
        served.append("t.id < %(after)s" if filters.order is Order.NEWEST else "t.id > %(after)s")
        parameters["after"] = after
    first = f"FROM tasks t{_where(served)} {order}"
    if not compared:
        found = await _tasks(connection, f"{first} LIMIT {limit + 1}", parameters)
        return Page(found[:limit], found[limit - 1].id if len(found) > limit else None)
    seen = f"FROM (SELECT * {first} LIMIT {LOOKED_THROUGH}) t{_where(compared)} {order} LIMIT {limit + 1}"
    found = await _tasks(connection, seen, parameters)
    if len(found) > limit:
        return Page(found[:limit], found[limit - 1].id)
    last = await connection.execute(f"SELECT t.id {first} LIMIT 1 OFFSET {LOOKED_THROUGH - 1}", parameters)
    return Page(found, next((row[0] for row in await last.fetchall()), None))


async def list_numbered(
    connection: Connection, filters: TaskFilter, *, actor: Actor, limit: int, page: int
) -> list[TaskRow]:
    """Return page number `page`, from 1."""
    chosen = chosen_by(filters, actor)
    rows = f"FROM tasks t{chosen.where} {_order(filters)} LIMIT {limit} OFFSET {(page - 1) * limit}"
    return await _tasks(connection, rows, chosen.parameters)


async def count(connection: Connection, filters: TaskFilter, *, actor: Actor) -> Total:
    """Count the tasks of a filter, up to COUNT_LIMIT."""
    chosen = chosen_by(filters, actor)
    statement = f"SELECT count(*) FROM (SELECT FROM tasks t{chosen.where} LIMIT {COUNT_LIMIT}) AS found"  # noqa: S608 - our own words
    found = await _value(connection, statement, chosen.parameters)
    return Total(found, "exact" if found < COUNT_LIMIT else "at_least")


async def estimate(connection: Connection, filters: TaskFilter, *, actor: Actor) -> Total:
    """Return how many tasks PostgreSQL's planner expects the filter to choose."""
    chosen = chosen_by(filters, actor)
    statement = f"EXPLAIN (FORMAT JSON) SELECT t.id FROM tasks t{chosen.where}"  # noqa: S608 - our own words
    plan = await _value(connection, statement, chosen.parameters)
    return Total(int(plan[0]["Plan"]["Plan Rows"]), "estimate")


def chosen_by(filters: TaskFilter, actor: Actor) -> Chosen:
    """Return what chooses the tasks of a filter, within the reach of the actor."""
    given = _parameters(filters, actor)
    parameters = {name: value for name, value in given.items() if value is not None}
    served = [condition for name, condition in SERVED.items() if name in parameters]
    compared = [condition for name, condition in COMPARED.items() if name in parameters]
    if statuses := frozenset(filters.status):
        names = ", ".join(f"'{TaskStatus(status)}'" for status in sorted(statuses))
        if statuses <= UNSUCCESSFUL:  # written so that the partial indexes serve it
            served.append(f"t.unsuccessful IN ({names})")
        elif statuses <= OPEN:
            served.append(f"t.status IN ({names}) AND t.finished_at IS NULL")
        else:
            compared.append(f"t.status IN ({names})")
    return Chosen(served, compared, parameters)


def _parameters(filters: TaskFilter, actor: Actor) -> dict[str, Any]:
    """Return a value for each condition; None where it is not wanted."""
    least, greatest = ids = _id_range(filters.q)
    return {
        "owner_id": filters.owner_id if actor.sees_all else actor.user_id,
        "schedule_id": filters.schedule_id,
        "batch_id": filters.batch_id,
        "created_from": filters.created_from,
        "created_from_id": filters.created_from and first_id(filters.created_from),
        "created_to": filters.created_to,
        "created_to_id": filters.created_to and first_id(filters.created_to + MILLISECOND),
        "least_id": least,
        "greatest_id": greatest,
        "type": list(filters.type) or None,
        "queue": filters.queue,
        "tag": filters.tag,
        "finished_from": filters.finished_from,
        "finished_to": filters.finished_to,
        "error_code": filters.error_code,
        "words": f"%{filters.q.translate(AS_THEY_ARE)}%" if filters.q and ids == NO_IDS else None,
    }


def _id_range(q: str | None) -> tuple[UUID, UUID] | tuple[None, None]:
    """Return the first and the last id that begin so, or NO_IDS when that is not how ids begin."""
    digits = (q or "").lower().replace("-", "")
    if not MIN_ID_CHARACTERS <= len(digits) <= ID_DIGITS or not HEX.issuperset(digits):
        return NO_IDS
    return UUID(digits.ljust(ID_DIGITS, "0")), UUID(digits.ljust(ID_DIGITS, "f"))


def _where(conditions: Sequence[str]) -> str:
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""


def _order(filters: TaskFilter) -> str:
    return f"ORDER BY t.id {'DESC' if filters.order is Order.NEWEST else 'ASC'}"


async def _tasks(connection: Connection, rows: str, parameters: dict[str, Any]) -> list[TaskRow]:
    found = await connection.execute(f"SELECT {COLUMNS} {rows}", parameters)
    return [TaskRow(*row) for row in await found.fetchall()]


async def _value(connection: Connection, statement: str, parameters: dict[str, Any]) -> Any:
    return (await (await connection.execute(statement, parameters)).fetchall())[0][0]
