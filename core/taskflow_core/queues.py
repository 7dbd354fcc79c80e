"""Use-cases of queues: list them with how they stand, pause, resume. None commits; the caller does."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from taskflow_core.actors import Actor
from taskflow_core.errors import Forbidden

MAX_LISTED = 100
COUNT_LIMIT = 10_000
TAIL = 30_000  # events


class QueueState(NamedTuple):
    """How a queue stands; `waiting` is counted up to COUNT_LIMIT, `oldest_age_s` is of the first task that waits."""

    name: str
    paused_at: datetime | None
    waiting: int
    running: int
    oldest_age_s: float | None


# Lanes come from a loose index scan: one step each, however many tasks wait. Users name queues as they like, so those
# that somebody serves or paused go first where there are too many.
NAMES = text("""
WITH RECURSIVE lane(name) AS (
  (SELECT lane FROM tasks WHERE finished_at IS NULL AND enqueued_at IS NOT NULL ORDER BY lane LIMIT 1)
  UNION ALL
  SELECT (SELECT t.lane FROM tasks t WHERE t.finished_at IS NULL AND t.enqueued_at IS NOT NULL AND t.lane > lane.name
    ORDER BY t.lane LIMIT 1) FROM lane WHERE lane.name IS NOT NULL
), known(name, rank) AS (
  SELECT unnest(queues), 0 FROM workers UNION ALL SELECT name, 0 FROM queues
  UNION ALL SELECT split_part(name, ':', 1), 1 FROM lane WHERE name IS NOT NULL
)
SELECT name FROM known GROUP BY name ORDER BY min(rank), name LIMIT :most
""")

STATES = text("""
WITH running AS (
  SELECT t.queue, count(*) AS tasks FROM workers w CROSS JOIN LATERAL (SELECT DISTINCT unnest(w.held) AS id) held
  JOIN tasks t ON t.id = held.id WHERE t.status = 'RUNNING' AND t.worker_id = w.id GROUP BY t.queue
)
SELECT n.name, q.paused_at, waiting.tasks, COALESCE(r.tasks, 0),
  EXTRACT(EPOCH FROM clock_timestamp() - oldest.enqueued_at)::float8
FROM unnest(CAST(:names AS text[])) AS n(name) LEFT JOIN queues q ON q.name = n.name
LEFT JOIN running r ON r.queue = n.name
CROSS JOIN LATERAL (SELECT ARRAY[n.name || '\\:high', n.name, n.name || '\\:low'] AS lanes) l
CROSS JOIN LATERAL (
  SELECT count(*) AS tasks FROM (
    SELECT FROM tasks t WHERE t.lane = ANY(l.lanes) AND t.finished_at IS NULL AND t.enqueued_at IS NOT NULL
      AND t.status = 'PENDING' LIMIT :most
  ) counted
) waiting
CROSS JOIN LATERAL (
  SELECT min(first.enqueued_at) AS enqueued_at FROM unnest(l.lanes) AS lane(name) CROSS JOIN LATERAL (
    SELECT t.enqueued_at FROM tasks t WHERE t.lane = lane.name AND t.finished_at IS NULL
      AND t.enqueued_at IS NOT NULL AND t.status = 'PENDING' ORDER BY t.enqueued_at LIMIT 1
  ) first
) oldest
ORDER BY n.name
""")

# The tail of the events, which a BRIN index finds, says what ended in the last minute. Where it holds less than that,
# `covered_s` is what it does hold.
THROUGHPUT = text("""
WITH tail AS MATERIALIZED (
  SELECT task_id, kind, created_at FROM task_events
  WHERE id > (SELECT last_value FROM task_events_id_seq) - :most
), span AS (
  SELECT CASE WHEN count(*) < :most * 0.9 OR min(created_at) <= now() - interval '1 minute' THEN 60
    ELSE GREATEST(EXTRACT(EPOCH FROM clock_timestamp() - min(created_at)), 0.001) END::float8 AS covered_s FROM tail
)
SELECT t.queue, count(*) * 60 / span.covered_s FROM span, tail JOIN tasks t ON t.id = tail.task_id
WHERE tail.kind IN ('task.completed', 'task.failed', 'task.canceled')
  AND tail.created_at > clock_timestamp() - interval '1 minute'
GROUP BY t.queue, span.covered_s
""")

PAUSE = text("""
INSERT INTO queues (name, paused_at) VALUES (:name, clock_timestamp())
ON CONFLICT (name) DO UPDATE SET paused_at = COALESCE(queues.paused_at, excluded.paused_at)
""")
RESUME = text("UPDATE queues SET paused_at = NULL WHERE name = :name")


async def list_states(session: AsyncSession) -> list[QueueState]:
    """Return up to MAX_LISTED queues by name: what workers serve, what was paused once, and where tasks wait."""
    names = (await session.execute(NAMES, {"most": MAX_LISTED})).scalars().all()
    return await _states(session, names)


async def throughput(session: AsyncSession) -> dict[str, float]:
    """Return how many tasks of each queue have ended in the last minute; queues without any are left out."""
    rows = await session.execute(THROUGHPUT, {"most": TAIL})
    return {row[0]: row[1] for row in rows}


async def pause(session: AsyncSession, name: str, *, actor: Actor) -> QueueState:
    """Let no worker take from a queue, whether it exists yet or not; running tasks go on.

    Raises:
        Forbidden: the actor is a USER.
    """
    return await _change(session, name, actor=actor, paused=True)


async def resume(session: AsyncSession, name: str, *, actor: Actor) -> QueueState:
    """Let workers take from a queue again.

    Raises:
        Forbidden: the actor is a USER.
    """
    return await _change(session, name, actor=actor, paused=False)


async def _change(session: AsyncSession, name: str, *, actor: Actor, paused: bool) -> QueueState:
    if not actor.sees_all:
        raise Forbidden("only an OPERATOR or an ADMIN may pause and resume queues")
    await session.execute(PAUSE if paused else RESUME, {"name": name})
    (state,) = await _states(session, [name])
    return state


async def _states(session: AsyncSession, names: Sequence[str]) -> list[QueueState]:
    rows = await session.execute(STATES, {"names": list(names), "most": COUNT_LIMIT})
    return [QueueState(*row) for row in rows]
