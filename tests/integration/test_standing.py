"""How the platform stands, as a scheduler counts it: bounded, by name where that is known, never stale."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from children import Client
from fake_context import add_user
from taskflow_cli.embedded.ports import free_port
from taskflow_core import standing
from taskflow_core.database import Sessions, plain_url
from taskflow_core.measures import OTHER
from taskflow_core.queue import DeliveryQueue, connect_redis
from taskflow_core.settings import SchedulerSettings, Settings
from taskflow_core.standing import Standing
from taskflow_worker import standing as worker_standing
from taskflow_worker.standing import Watcher
from waiting import eventually_async
from webhook_stage import Stage, scheduler_settings

WORKER = "INSERT INTO workers (id, name, hostname, pid, queues, slots, version) VALUES (%s, %s, 'h', 1, %s, 4, '0')"
Connection = psycopg.AsyncConnection[Any]


@pytest.fixture
async def connection(settings: Settings) -> AsyncIterator[Connection]:
    url = plain_url(settings.database_url)
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        yield connection


async def add_worker(connection: Connection, name: str, *queues: str) -> None:
    await connection.execute(WORKER, [name, name, list(queues)])


def values(registry: CollectorRegistry, name: str) -> dict[str, float]:
    """Return the samples of a metric by their one label, "" without one."""
    samples = [sample for family in registry.collect() for sample in family.samples if sample.name == name]
    return {"".join(sample.labels.values()): sample.value for sample in samples}


async def test_an_empty_platform_stands_still(connection: Connection) -> None:
    seen = await standing.look(connection)
    assert set(seen.queues) == {OTHER}
    assert (seen.workers, seen.webhooks) == (
        {"running": 0, "draining": 0, "lost": 0},
        {"working": 0, "failing": 0, "disabled": 0},
    )
    assert seen[3:] == (0.0, 0, 0, 0.0)


async def test_queues_that_are_served_or_were_paused_have_a_name_and_all_others_share_one(
    connection: Connection, client: Client
) -> None:
    await add_worker(connection, "one", "default", "mail")
    await connection.execute("INSERT INTO queues (name, paused_at) VALUES ('slow', clock_timestamp()), ('once', NULL)")
    for queue in ("default", "slow", "misspelt-1", "misspelt-2"):
        await client.submit("ECHO", queue=queue, priority=1)
        await client.submit("ECHO", queue=queue)
    seen = await standing.look(connection)
    assert set(seen.queues) == {"default", "mail", "slow", "once", OTHER}
    assert {name for name, queue in seen.queues.items() if queue.oldest_age_s > 0} == {"default", "slow", OTHER}
    assert {name for name, queue in seen.queues.items() if queue.paused} == {"slow"}
    assert set(seen.queues[OTHER].lanes) == {"misspelt-1", "misspelt-1:high", "misspelt-2", "misspelt-2:high"}


async def test_queues_beyond_the_cap_share_one_name(
    connection: Connection, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing, "MAX_QUEUES", 2)
    await add_worker(connection, "one", "a", "b", "c")
    await client.submit("ECHO", queue="c")
    seen = await standing.look(connection)
    assert set(seen.queues) == {"a", "b", OTHER}
    assert seen.queues[OTHER].oldest_age_s > 0


async def test_workers_tasks_and_the_outbox_are_counted(
    connection: Connection, client: Client, sessions: Sessions, settings: Settings
) -> None:
    for name in ("running", "draining", "lost"):
        await add_worker(connection, name, "default")
    await connection.execute("UPDATE workers SET state = 'draining' WHERE id = 'draining'")
    await connection.execute("UPDATE workers SET heartbeat_at = now() - interval '1 minute' WHERE id = 'lost'")
    running, dead, due = [await client.submit("ECHO") for _ in range(3)]
    await connection.execute(
        "UPDATE tasks SET status = 'RUNNING', worker_id = 'running', fence = 1, attempt = 1, claimed_at = now(), "
        "started_at = now(), lease_expires_at = now() + interval '1 minute' WHERE id = %s",
        [running],
    )
    await connection.execute("UPDATE workers SET held = ARRAY[%s]::uuid[] WHERE id = 'running'", [running])
    await connection.execute("UPDATE tasks SET status = 'FAILED', finished_at = now() WHERE id = %s", [dead])
    await connection.execute(
        "UPDATE tasks SET enqueued_at = NULL, run_at = now() - interval '1 minute' WHERE id = %s", [due]
    )
    seen = await standing.look(connection)
    assert seen.workers == {"running": 1, "draining": 1, "lost": 1}
    assert seen.queues["default"].running == 1
    assert seen.dead_letters == 1
    assert seen.outbox_lag_s >= 60


async def test_webhooks_are_counted_by_how_they_do(
    connection: Connection, settings: Settings, sessions: Sessions
) -> None:
    stage = Stage(scheduler_settings(settings), sessions, await add_user(sessions))
    working, failing, disabled = [await stage.hook(f"http://127.0.0.1/{number}") for number in range(3)]
    await stage.sql("UPDATE webhook_endpoints SET first_failure_at = now() WHERE id = :id", id=failing)
    await stage.sql("UPDATE webhook_endpoints SET disabled_at = now() WHERE id = :id", id=disabled)
    await stage.sql(
        "INSERT INTO webhook_deliveries (id, endpoint_id, kind, body, next_attempt_at) "
        "VALUES (gen_random_uuid(), :id, 'test', '{}', now() - interval '1 minute')",
        id=working,
    )
    seen = await standing.look(connection)
    assert seen.webhooks == {"working": 1, "failing": 1, "disabled": 1}
    assert (seen.webhooks_waiting, seen.webhooks_lag_s >= 60) == (1, True)


class Watching:
    """A watcher at work, and what it tells."""

    def __init__(self, settings: SchedulerSettings) -> None:
        self.registry = CollectorRegistry()
        self.redis = connect_redis(settings)
        self.stopping = asyncio.Event()
        self.watcher = Watcher(settings, DeliveryQueue(self.redis), self.registry)
        self.running = asyncio.create_task(self.watcher.run(self.stopping))

    async def told(self, name: str) -> dict[str, float]:
        """Wait until a metric is told, and return its values."""

        async def look() -> dict[str, float]:
            return values(self.registry, name)

        found = await eventually_async(look)
        assert found
        return found

    async def end(self) -> None:
        self.stopping.set()
        await self.running
        await self.redis.aclose()


async def test_a_scrape_tells_what_was_gathered_last(
    connection: Connection, client: Client, settings: Settings
) -> None:
    await add_worker(connection, "one", "default")
    for queue in ("default", "default", "nobody"):
        await client.submit("ECHO", queue=queue)
    watching = Watching(scheduler_settings(settings, metrics_interval_s=0.1))
    assert await watching.told("taskflow_queue_waiting") == {"default": 2, OTHER: 1}
    assert await watching.told("taskflow_workers") == {"running": 1, "draining": 0, "lost": 0}
    await watching.end()


async def test_without_redis_only_the_depth_of_queues_is_missing(connection: Connection, settings: Settings) -> None:
    await add_worker(connection, "one", "default")
    nowhere = SecretStr(f"redis://127.0.0.1:{free_port()}/0")
    watching = Watching(scheduler_settings(settings, metrics_interval_s=0.1, redis_url=nowhere))
    assert await watching.told("taskflow_queue_running") == {"default": 0, OTHER: 0}
    assert values(watching.registry, "taskflow_queue_waiting") == {}
    await watching.end()


@pytest.mark.parametrize("error", [psycopg.OperationalError("no answer"), RuntimeError("a mistake of ours")])
async def test_what_was_gathered_before_an_outage_is_not_told_any_more(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(worker_standing, "LOOK_S", 1.0)
    watching = Watching(scheduler_settings(settings, metrics_interval_s=0.1))
    await watching.told("taskflow_dead_letters")

    async def away(_connection: Connection) -> Standing:
        raise error

    monkeypatch.setattr(standing, "look", away)

    async def is_silent() -> bool:
        return not values(watching.registry, "taskflow_dead_letters")

    assert await eventually_async(is_silent)
    assert not watching.running.done()
    monkeypatch.undo()
    await watching.told("taskflow_dead_letters")
    await watching.end()
