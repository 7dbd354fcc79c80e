"""How the whole platform stands, for its metrics: a few bounded looks at PostgreSQL that change nothing.

Users name queues as they like. Those that a worker serves, or that were paused once, are told by name; all others
together are told as OTHER.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, LiteralString, NamedTuple

from psycopg import AsyncConnection

from taskflow_core.lanes import lanes_of, queue_of
from taskflow_core.measures import OTHER
from taskflow_core.recovery import LANES
from taskflow_core.workers import LOST_AFTER_S

MAX_QUEUES = 50
MAX_LANES = 500
COUNT_LIMIT = 20_000

KNOWN: LiteralString = """
SELECT name FROM (
  SELECT unnest(queues) AS name, 0 AS rank FROM workers UNION ALL SELECT name, 1 FROM queues
) known GROUP BY name ORDER BY min(rank), name LIMIT %(most)s
"""
SOME_LANES: LiteralString = LANES + " LIMIT %(most)s"
OLDEST: LiteralString = """
SELECT lanes.name, EXTRACT(EPOCH FROM clock_timestamp() - first.enqueued_at)::float8
FROM unnest(%(lanes)s::text[]) AS lanes(name) CROSS JOIN LATERAL (
  SELECT enqueued_at FROM tasks WHERE lane = lanes.name AND finished_at IS NULL AND enqueued_at IS NOT NULL
    AND status = 'PENDING' ORDER BY enqueued_at LIMIT 1
) first
"""
RUNNING: LiteralString = """
SELECT t.queue, count(*) FROM workers w CROSS JOIN LATERAL (SELECT DISTINCT unnest(w.held) AS id) held
JOIN tasks t ON t.id = held.id WHERE t.status = 'RUNNING' AND t.worker_id = w.id GROUP BY t.queue
"""
PAUSED: LiteralString = "SELECT name FROM queues WHERE paused_at IS NOT NULL"
WORKERS: LiteralString = """
SELECT CASE WHEN heartbeat_at < clock_timestamp() - make_interval(secs => %(lost_after_s)s) THEN 'lost' ELSE state END,
  count(*) FROM workers GROUP BY 1
"""
WEBHOOKS: LiteralString = """
SELECT CASE WHEN disabled_at IS NOT NULL THEN 'disabled' WHEN first_failure_at IS NOT NULL THEN 'failing'
  ELSE 'working' END, count(*) FROM (SELECT * FROM webhook_endpoints LIMIT %(most)s) counted GROUP BY 1
"""
# Each is one step in an index, or counts no further than `most`.
FIGURES: LiteralString = """
SELECT
  (SELECT GREATEST(0, EXTRACT(EPOCH FROM clock_timestamp() - min(run_at)))::float8 FROM tasks
    WHERE finished_at IS NULL AND enqueued_at IS NULL),
  (SELECT count(*) FROM (SELECT FROM tasks WHERE unsuccessful = 'FAILED' LIMIT %(most)s) counted),
  (SELECT count(*) FROM (SELECT FROM webhook_deliveries WHERE next_attempt_at IS NOT NULL LIMIT %(most)s) counted),
  (SELECT GREATEST(0, EXTRACT(EPOCH FROM clock_timestamp() - min(next_attempt_at)))::float8 FROM webhook_deliveries
    WHERE next_attempt_at IS NOT NULL)
"""
WORKER_STATES = ("running", "draining", "lost")
WEBHOOK_STATES = ("working", "failing", "disabled")


class QueueStanding(NamedTuple):
    """How a queue stands; `lanes` are those whose deliveries are its own."""

    lanes: Sequence[str]
    running: int
    oldest_age_s: float
    paused: bool


class Standing(NamedTuple):
    """How the platform stands. Counts of what has no bound end at COUNT_LIMIT; an age of nothing is 0."""

    queues: Mapping[str, QueueStanding]
    workers: Mapping[str, int]
    webhooks: Mapping[str, int]
    outbox_lag_s: float
    dead_letters: int
    webhooks_waiting: int
    webhooks_lag_s: float


async def look(connection: AsyncConnection[Any]) -> Standing:
    """Return how the platform stands now.

    Raises:
        psycopg.Error: PostgreSQL is away, or a statement took too long.
    """
    most = {"most": COUNT_LIMIT}
    ((outbox_s, dead, waiting, webhooks_s),) = await _rows(connection, FIGURES, most)
    workers = dict(await _rows(connection, WORKERS, {"lost_after_s": LOST_AFTER_S}))
    webhooks = dict(await _rows(connection, WEBHOOKS, most))
    return Standing(
        queues=await _queues(connection),
        workers={state: workers.get(state, 0) for state in WORKER_STATES},
        webhooks={state: webhooks.get(state, 0) for state in WEBHOOK_STATES},
        outbox_lag_s=outbox_s or 0.0,
        dead_letters=dead,
        webhooks_waiting=waiting,
        webhooks_lag_s=webhooks_s or 0.0,
    )


async def _queues(connection: AsyncConnection[Any]) -> dict[str, QueueStanding]:
    known = [name for (name,) in await _rows(connection, KNOWN, {"most": MAX_QUEUES})]
    lanes: dict[str, list[str]] = {name: lanes_of([name]) for name in known} | {OTHER: []}
    for (lane,) in await _rows(connection, SOME_LANES, {"most": MAX_LANES}):
        if queue_of(lane) not in known:
            lanes[OTHER].append(lane)
    told = {lane: name for name, own in lanes.items() for lane in own}
    oldest: dict[str, float] = defaultdict(float)
    for lane, age_s in await _rows(connection, OLDEST, {"lanes": list(told)}):
        oldest[told[lane]] = max(oldest[told[lane]], age_s)
    running: dict[str, int] = defaultdict(int)
    for queue, tasks in await _rows(connection, RUNNING, {}):
        running[queue if queue in known else OTHER] += tasks
    paused = {name for (name,) in await _rows(connection, PAUSED, {})}
    return {name: QueueStanding(own, running[name], oldest[name], name in paused) for name, own in lanes.items()}


async def _rows(
    connection: AsyncConnection[Any], statement: LiteralString, parameters: dict[str, Any]
) -> list[tuple[Any, ...]]:
    return await (await connection.execute(statement, parameters)).fetchall()
