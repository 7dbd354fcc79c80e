"""Whether a big table is slow: claim, complete and list beside ten thousand finished rows and beside ten million."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple
from uuid import UUID

from psycopg import AsyncConnection

from servers import Servers
from taskflow_core import leases, listing
from taskflow_core.actors import Actor
from taskflow_core.identifiers import new_id
from taskflow_core.leases import Claimed, Finished
from taskflow_core.lifecycle import completed
from taskflow_core.links import Link
from taskflow_core.listing import TaskFilter
from taskflow_core.models.users import Role

BATCH = 50
ROUNDS = 60
OWNERS = 100
PAGE = 20

# Finished tasks; ids as UUIDv7 would be, one a millisecond, in the past.
HISTORY = """
INSERT INTO tasks (id, owner_id, type, lane, status, payload, result, attempt, fence, created_at, finished_at)
SELECT (lpad(to_hex(1700000000000 + n), 12, '0') || '7' || substr(md5(n::text), 1, 3) || '8'
    || substr(md5(n::text), 4, 15))::uuid,
  ('00000000-0000-0000-0000-' || lpad((n %% %(owners)s)::text, 12, '0'))::uuid, 'ECHO', 'default', 'COMPLETED',
  '{"value": 1}', '{"value": 1}', 1, 1, to_timestamp((1700000000000 + n) / 1000.0), now()
FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n
"""
WAITING = """
INSERT INTO tasks (id, owner_id, type, lane, payload, created_at, enqueued_at)
SELECT unnest(%s::uuid[]), '00000000-0000-0000-0000-000000000001', 'ECHO', 'default', '{}', now(), clock_timestamp()
"""
REGISTER = """
INSERT INTO workers (id, name, hostname, pid, queues, slots, version)
VALUES ('bench', 'bench', 'here', 1, '{default}', 50, '0') ON CONFLICT DO NOTHING
"""
UPDATES = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'tasks'"


class Growth(NamedTuple):
    """Median milliseconds of each statement at one size, and which part of the claims' updates was heap-only."""

    rows: int
    claim: float
    complete: float
    first_page: float
    deep_page: float
    claims_heap_only: float


def measure(servers: Servers, sizes: tuple[int, ...]) -> list[Growth]:
    """Return what each statement costs at each size; sizes grow."""
    return asyncio.run(_measure(servers, sizes))


async def _measure(servers: Servers, sizes: tuple[int, ...]) -> list[Growth]:
    measured = []
    async with await AsyncConnection.connect(servers.database_url, autocommit=True) as connection:
        await connection.execute("TRUNCATE tasks, task_events, task_attempts, task_logs CASCADE")
        await connection.execute(REGISTER)
        rows = 0
        for size in sizes:
            for first in range(rows + 1, size + 1, 1_000_000):
                last = min(first + 999_999, size)
                await connection.execute(HISTORY, {"owners": OWNERS, "first": first, "last": last})
            rows = size
            await connection.execute("VACUUM ANALYZE tasks")
            await connection.execute("CHECKPOINT")
            measured.append(await _one_size(servers, connection, size))
    return measured


async def _one_size(servers: Servers, connection: AsyncConnection[Any], size: int) -> Growth:
    ids = [new_id() for _ in range(BATCH * ROUNDS)]
    await connection.execute(WAITING, [ids])
    before = await _updates(connection)
    claims: list[list[Claimed]] = []

    async def claim(number: int) -> None:
        batch = ids[number * BATCH : (number + 1) * BATCH]
        claims.append(await leases.claim(connection, batch, worker="bench", held=[], lease_s=60))

    async def complete(number: int) -> None:
        ended = [Finished(task, completed("{}")) for task in claims[number]]
        await leases.finish(connection, ended, worker="bench")

    claim_ms = await _median_ms(claim)
    after = await _updates(connection)
    complete_ms = await _median_ms(complete)
    first_ms, deep_ms = await _pages(servers, size)
    heap_only = (after[1] - before[1]) / max(1, after[0] - before[0])
    return Growth(size, claim_ms, complete_ms, first_ms, deep_ms, heap_only)


async def _pages(servers: Servers, size: int) -> tuple[float, float]:
    link = Link(servers.settings, service="bench", planner="")
    connection = await link.get()
    actor = Actor(UUID(int=7), Role.USER)
    middle = UUID(int=(1_700_000_000_000 + size // 2) << 80)

    async def first(_: int) -> None:
        await listing.list_after(connection, TaskFilter(), actor=actor, limit=PAGE, after=None)

    async def deep(_: int) -> None:
        await listing.list_after(connection, TaskFilter(), actor=actor, limit=PAGE, after=middle)

    found = await _median_ms(first), await _median_ms(deep)
    await link.drop()
    return found


async def _median_ms(run: Callable[[int], Awaitable[None]]) -> float:
    spent = []
    for number in range(ROUNDS):
        started = time.perf_counter()
        await run(number)
        spent.append(time.perf_counter() - started)
    return statistics.median(spent) * 1000


async def _updates(connection: AsyncConnection[Any]) -> tuple[int, int]:
    await connection.execute("SELECT pg_stat_force_next_flush()")
    row = await (await connection.execute(UPDATES)).fetchone()
    return (int(row[0]), int(row[1])) if row else (0, 0)
