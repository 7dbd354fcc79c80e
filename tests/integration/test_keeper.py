"""What a worker leaves behind when it stops: its row goes, unless a task is still found by it."""

import asyncio

import psycopg
import pytest

from children import Client
from taskflow_core import leases, recovery
from taskflow_core.database import plain_url
from taskflow_core.probes import Pulse
from taskflow_core.settings import Settings, WorkerSettings
from taskflow_worker.keeper import Identity, Keeper

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
