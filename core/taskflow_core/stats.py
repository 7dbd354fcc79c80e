"""Figures about the tasks that were created within a window: counts, throughput, times, failures.

One statement walks the newest tasks by their ids, at most MAX_TASKS of them, so it costs the same beside ten million
others; where the window holds more, the figures are of the newest and `complete` says so.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from taskflow_core.actors import Actor
from taskflow_core.identifiers import first_id

MAX_TASKS = 200_000
MAX_TYPES = 50
MAX_CODES = 20
MAX_BUCKETS = 120
BUCKETS_S = (60, 300, 900)
STATEMENT_TIMEOUT_S = 5


class Window(NamedTuple):
    """The time that figures are about; `bucket_s` is the width of a bar of the histogram, in seconds."""

    start: datetime
    end: datetime
    bucket_s: int


BOUND = text("SELECT set_config('statement_timeout', :bound, true), clock_timestamp()")
# Waiting is from the delivery to the claim, running from the claim to the end, both of the last attempt.
FIGURES = """
WITH seen AS MATERIALIZED (
  SELECT type, status, created_at, finished_at, error ->> 'code' AS code,
    CASE WHEN claimed_at >= enqueued_at THEN EXTRACT(EPOCH FROM claimed_at - enqueued_at)::float8 END AS wait_s,
    CASE WHEN status IN ('COMPLETED', 'FAILED') THEN EXTRACT(EPOCH FROM finished_at - claimed_at)::float8 END AS run_s
  FROM tasks WHERE id >= :first AND created_at >= :start {mine} ORDER BY id DESC LIMIT :most
), types AS (
  SELECT type, count(*) AS total, count(*) FILTER (WHERE status = 'PENDING') AS pending,
    count(*) FILTER (WHERE status = 'RUNNING') AS running, count(*) FILTER (WHERE status = 'COMPLETED') AS completed,
    count(*) FILTER (WHERE status = 'FAILED') AS failed, count(*) FILTER (WHERE status = 'CANCELED') AS canceled
  FROM seen GROUP BY type ORDER BY total DESC, type LIMIT :types
), codes AS (
  SELECT code, count(*) AS total FROM seen WHERE status = 'FAILED' AND code IS NOT NULL
  GROUP BY code ORDER BY total DESC, code LIMIT :codes
), moments AS (
  SELECT created_at AS at, 'created' AS what FROM seen
  UNION ALL SELECT finished_at, lower(status) FROM seen WHERE finished_at IS NOT NULL
), bars AS (
  SELECT floor(EXTRACT(EPOCH FROM at) / :bucket_s)::bigint * :bucket_s AS at,
    count(*) FILTER (WHERE what = 'created') AS created, count(*) FILTER (WHERE what = 'completed') AS completed,
    count(*) FILTER (WHERE what = 'failed') AS failed, count(*) FILTER (WHERE what = 'canceled') AS canceled
  FROM moments GROUP BY 1
)
SELECT (SELECT jsonb_object_agg(status, total) FROM (SELECT status, count(*) AS total FROM seen GROUP BY status) s),
  (SELECT jsonb_agg(types) FROM types), (SELECT jsonb_agg(codes) FROM codes), (SELECT jsonb_agg(bars) FROM bars),
  (SELECT percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY wait_s) FROM seen),
  (SELECT percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY run_s) FROM seen)
"""
OF_ALL = text(FIGURES.format(mine=""))
OF_ONE = text(FIGURES.format(mine="AND owner_id = :owner_id"))
STATUSES = ("PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELED")
BARS = ("created", "completed", "failed", "canceled")


async def figures(session: AsyncSession, *, actor: Actor, window_s: int) -> dict[str, Any]:
    """Return the figures of the last `window_s` seconds: one's own tasks, all of them for OPERATOR and ADMIN.

    Raises:
        sqlalchemy.exc.OperationalError: it took longer than STATEMENT_TIMEOUT_S.
    """
    bound = {"bound": f"{STATEMENT_TIMEOUT_S}s"}
    now: datetime = (await session.execute(BOUND, bound)).one()[1]
    window = Window(now - timedelta(seconds=window_s), now, _bucket_s(window_s))
    parameters = {
        "first": first_id(window.start),
        "start": window.start,
        "most": MAX_TASKS,
        "types": MAX_TYPES,
        "codes": MAX_CODES,
        "bucket_s": window.bucket_s,
    }
    if actor.sees_all:
        row = (await session.execute(OF_ALL, parameters)).one()
    else:
        row = (await session.execute(OF_ONE, parameters | {"owner_id": actor.user_id})).one()
    statuses, types, codes, bars, waits, runs = row
    totals = {status: (statuses or {}).get(status, 0) for status in STATUSES}
    return {
        "from": window.start,
        "to": window.end,
        "complete": sum(totals.values()) < MAX_TASKS,
        "totals": totals,
        "types": types or [],
        "failures": codes or [],
        "bucket_s": window.bucket_s,
        "throughput": _histogram(bars or [], window),
        "wait_s": _percentiles(waits),
        "run_s": _percentiles(runs),
    }


def _bucket_s(window_s: int) -> int:
    return next(width for width in BUCKETS_S if window_s <= width * MAX_BUCKETS)


def _histogram(bars: list[dict[str, int]], window: Window) -> list[dict[str, Any]]:
    """Return every bar of the window, oldest first, those without tasks too."""
    by_time = {bar["at"]: bar for bar in bars}
    first = int(window.start.timestamp()) // window.bucket_s * window.bucket_s
    times = range(first, int(window.end.timestamp()) + 1, window.bucket_s)
    none = dict.fromkeys(BARS, 0)
    return [{**none, **by_time.get(at, {}), "at": datetime.fromtimestamp(at, tz=UTC)} for at in times]


def _percentiles(pair: list[float] | None) -> dict[str, float | None]:
    p50, p95 = pair or (None, None)
    return {"p50": p50, "p95": p95}
