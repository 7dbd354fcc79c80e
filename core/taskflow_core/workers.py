"""Use-cases of workers: which there are, what each runs, and which of them have gone silent. They change nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from taskflow_core.actors import Actor
from taskflow_core.errors import Forbidden, NotFound

LOST_AFTER_S = 45  # a worker writes its row every 15 seconds at least


@dataclass(frozen=True, slots=True)
class WorkerState:
    """How a worker stands; `state` is running, draining or lost, `heartbeat_age_s` in seconds."""

    id: str
    name: str
    hostname: str
    pid: int
    queues: Sequence[str]
    slots: int
    busy: int
    state: str
    version: str
    started_at: datetime
    heartbeat_at: datetime
    heartbeat_age_s: float


class Running(NamedTuple):
    """A task that a worker runs, and since when."""

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


class Page(NamedTuple):
    """Workers by id, and the id after which the next page starts (None at the end)."""

    workers: list[WorkerState]
    next_after: str | None


STATES = """
SELECT w.id, w.name, w.hostname, w.pid, w.queues, w.slots, (
    SELECT count(*) FROM (SELECT DISTINCT unnest(w.held) AS id) h JOIN tasks t ON t.id = h.id
    WHERE t.status = 'RUNNING' AND t.worker_id = w.id),
  CASE WHEN w.heartbeat_at < clock_timestamp() - make_interval(secs => :lost_after_s) THEN 'lost' ELSE w.state END,
  w.version, w.started_at, w.heartbeat_at, EXTRACT(EPOCH FROM clock_timestamp() - w.heartbeat_at)::float8
FROM workers w
"""
LIST = text(f"{STATES} WHERE w.id > :after ORDER BY w.id LIMIT :limit")
ONE = text(f"{STATES} WHERE w.id = :id")
RUNNING = text("""
SELECT t.id, t.owner_id, t.type, t.title, t.queue, t.attempt, t.claimed_at, t.timeout_s, t.lease_expires_at, t.progress,
  t.cancel_requested_at IS NOT NULL
FROM workers w CROSS JOIN LATERAL (SELECT DISTINCT unnest(w.held) AS id) h JOIN tasks t ON t.id = h.id
WHERE w.id = :id AND t.status = 'RUNNING' AND t.worker_id = w.id ORDER BY t.claimed_at, t.id
""")


async def list_after(session: AsyncSession, *, actor: Actor, limit: int, after: str | None) -> Page:
    """Return a page of workers that come after the given id.

    Raises:
        Forbidden: the actor is a USER.
    """
    _check(actor)
    rows = await session.execute(LIST, {"after": after or "", "limit": limit + 1, "lost_after_s": LOST_AFTER_S})
    found = [WorkerState(*row) for row in rows]
    return Page(found[:limit], found[limit - 1].id if len(found) > limit else None)


async def get(session: AsyncSession, worker_id: str, *, actor: Actor) -> tuple[WorkerState, list[Running]]:
    """Return one worker and the tasks that it runs, the longest first.

    Raises:
        Forbidden: the actor is a USER.
        NotFound: there is no such worker.
    """
    _check(actor)
    row = (await session.execute(ONE, {"id": worker_id, "lost_after_s": LOST_AFTER_S})).one_or_none()
    if row is None:
        raise NotFound("there is no such worker; its row is gone when it has stopped")
    running = await session.execute(RUNNING, {"id": worker_id})
    return WorkerState(*row), [Running(*task) for task in running]


def _check(actor: Actor) -> None:
    if not actor.sees_all:
        raise Forbidden("only an OPERATOR or an ADMIN may see the workers")
