"""How many tasks may run at once, of one type and of one owner, on all workers together.

Where a limit is set, claims that it may touch take turns (an advisory lock), count what runs, and put off what does
not fit for a moment: no attempt is burned and no slot waits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, LiteralString
from uuid import UUID

from psycopg import AsyncConnection

from taskflow_core import leases
from taskflow_core.leases import Claimed

LOCK = 7_461_836_202  # any constant, the same in every worker
PUT_OFF_S = 1.0  # at least; twice as much again is jitter

PUT_OFF: LiteralString = """
WITH wanted AS (
  SELECT id, type, owner_id, enqueued_at FROM tasks
  WHERE id = ANY(%(ids)s::uuid[]) AND status = 'PENDING' AND run_at <= clock_timestamp()
), running AS (
  SELECT t.type, t.owner_id FROM workers w CROSS JOIN LATERAL (SELECT DISTINCT unnest(w.held) AS id) h
  JOIN tasks t ON t.id = h.id WHERE t.status = 'RUNNING' AND t.worker_id = w.id
), place AS (
  SELECT w.id, w.type,
    (SELECT count(*) FROM running r WHERE r.type = w.type)
      + row_number() OVER (PARTITION BY w.type ORDER BY w.enqueued_at, w.id) AS of_type,
    (SELECT count(*) FROM running r WHERE r.owner_id = w.owner_id)
      + row_number() OVER (PARTITION BY w.owner_id ORDER BY w.enqueued_at, w.id) AS of_owner
  FROM wanted w
)
UPDATE tasks t SET enqueued_at = NULL,
  run_at = clock_timestamp() + make_interval(secs => %(put_off_s)s * (1 + 2 * random()))
FROM (SELECT * FROM place ORDER BY id) AS p
LEFT JOIN unnest(%(types)s::text[], %(most)s::int[]) AS l(type, most) ON l.type = p.type
WHERE t.id = p.id AND t.status = 'PENDING' AND (p.of_type > l.most OR p.of_owner > %(per_owner)s::int)
RETURNING t.id
"""


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds: of each type by name, and of every owner (None: no bound)."""

    of_types: Mapping[str, int] = field(default_factory=dict)
    per_owner: int | None = None


async def claim(
    connection: AsyncConnection[Any],
    ids: Sequence[UUID],
    *,
    limits: Limits,
    worker: str,
    held: Sequence[UUID],
    lease_s: float,
) -> list[Claimed]:
    """Claim like `leases.claim`, within the limits; what does not fit becomes due again a moment later.

    Tasks of types without a limit are claimed in one statement, as if there were none.
    """
    if limits.per_owner is not None:
        return await _claim_in_turn(connection, ids, limits=limits, worker=worker, held=held, lease_s=lease_s)
    free = await leases.claim(connection, ids, worker=worker, held=held, lease_s=lease_s, but=limits.of_types)
    claimed = {task.id for task in free}
    rest = [task_id for task_id in ids if task_id not in claimed]
    if not limits.of_types or not rest:
        return free
    held = [*held, *claimed]
    return free + await _claim_in_turn(connection, rest, limits=limits, worker=worker, held=held, lease_s=lease_s)


async def _claim_in_turn(
    connection: AsyncConnection[Any],
    ids: Sequence[UUID],
    *,
    limits: Limits,
    worker: str,
    held: Sequence[UUID],
    lease_s: float,
) -> list[Claimed]:
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
        parameters = {
            "ids": list(ids),
            "types": list(limits.of_types),
            "most": list(limits.of_types.values()),
            "per_owner": limits.per_owner,
            "put_off_s": PUT_OFF_S,
        }
        put_off = {row[0] for row in await (await connection.execute(PUT_OFF, parameters)).fetchall()}
        fit = [task_id for task_id in ids if task_id not in put_off]
        return await leases.claim(connection, fit, worker=worker, held=held, lease_s=lease_s)
