"""What a worker leaves behind when it stops: its row goes, unless a task is still found by it."""

import asyncio

import psycopg
import pytest

from children import Client
from taskflow_core import leases, recovery
from taskflow_core.database import plain_url
from taskflow_core.links import connect_blocking
from taskflow_core.probes import Pulse
from taskflow_core.settings import Settings, WorkerSettings
from taskflow_worker.keeper import Identity, Keeper
from waiting import eventually_async

WORKER = "host-1-boot"


@pytest.fixture
async def keeper(settings: Settings) -> Keeper:
    """Return the keeper of a worker that is registered and runs nothing that it knows of."""
    identity = Identity(id=WORKER, name="w", hostname="host", pid=1, queues=["default"], slots=1, version="0")
    keeper = Keeper(
        WorkerSettings(database_url=settings.database_url, redis_url=settings.redis_url),
        identity,
        runs=list,
        draining=lambda: True,
        loop=asyncio.get_running_loop(),
        pulse=Pulse(),
    )
    keeper.register()
    keeper.start()
    return keeper


async def test_a_worker_takes_its_row_away(settings: Settings, keeper: Keeper) -> None:
    await asyncio.to_thread(keeper.stop)
    with psycopg.connect(plain_url(settings.database_url)) as connection:
        assert connection.execute("SELECT id FROM workers").fetchall() == []


async def test_a_worker_whose_end_of_a_task_was_not_written_is_found_by_the_next_sweep_for_leases(
    settings: Settings, client: Client, keeper: Keeper
) -> None:
    task_id = await client.submit("NAP", deliver=False)
    async with await psycopg.AsyncConnection.connect(plain_url(settings.database_url), autocommit=True) as connection:
        (claimed,) = await leases.claim(connection, [task_id], worker=WORKER, held=[], lease_s=-1)
        await asyncio.to_thread(keeper.stop)
        assert [task.id for task in await recovery.expire(connection)] == [claimed.id]


async def test_renewing_locks_tasks_in_the_order_of_their_ids_wherever_they_lie(
    settings: Settings, client: Client
) -> None:
    """Another order, and a worker that completes the same two at this moment waits for it, and it for the worker."""
    ids = sorted([await client.submit("NAP", deliver=False) for _ in range(2)])
    url = plain_url(settings.database_url)
    with connect_blocking(settings, service="keeper") as keeping:
        async with (
            await psycopg.AsyncConnection.connect(url, autocommit=True) as one,
            await psycopg.AsyncConnection.connect(url, autocommit=True) as other,
        ):
            await one.execute(
                "INSERT INTO workers (id, name, hostname, pid, queues, slots, version) VALUES "
                "(%s, 'w', 'host', 1, '{default}', 2, '0')",
                [WORKER],
            )
            held = await leases.claim(one, ids, worker=WORKER, held=[], lease_s=60)
            leases.renew(
                keeping, [task for task in held if task.id == ids[0]], worker=WORKER, lease_s=60
            )  # now it lies last
            async with one.transaction():
                await one.execute("SELECT FROM tasks WHERE id = %s FOR UPDATE", [ids[0]])
                renewing = asyncio.create_task(
                    asyncio.to_thread(leases.renew, keeping, held, worker=WORKER, lease_s=60)
                )
                await eventually_async(lambda: _waits(other, keeping.info.backend_pid))
                await other.execute("SELECT FROM tasks WHERE id = %s FOR UPDATE NOWAIT", [ids[1]])
            assert [task.id for task in await renewing] == ids


async def _waits(connection: psycopg.AsyncConnection, backend: int) -> bool:
    row = await (await connection.execute("SELECT cardinality(pg_blocking_pids(%s)) > 0", [backend])).fetchone()
    return row is not None and bool(row[0])
