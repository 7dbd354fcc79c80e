"""What handlers log is there while they run, each line once, whatever becomes of the worker."""

import asyncio
import secrets
import signal
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from children import Children, Client, children
from taskflow_core import leases
from taskflow_core.database import create_engine, create_sessions
from taskflow_core.leases import Claimed, Finished, LogLine
from taskflow_core.lifecycle import completed
from taskflow_core.links import Link
from taskflow_core.queue import DeliveryQueue, connect_redis
from taskflow_core.settings import Settings
from taskflow_worker.runs import MAX_LOG_LINES, TRUNCATED
from waiting import eventually_async

REGISTER = (
    "INSERT INTO workers (id, name, hostname, pid, queues, slots, version) VALUES (:id, 'w', 'h', 1, '{nobody}', 1, '')"
)


@pytest.fixture(scope="module")
def nursery(module_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Children]:
    env = {
        "TASKFLOW_DATABASE_URL": module_settings.database_url.get_secret_value(),
        "TASKFLOW_REDIS_URL": module_settings.redis_url.get_secret_value(),
        "TASKFLOW_JWT_SECRET": secrets.token_urlsafe(48),
    }
    with children(env, tmp_path_factory.mktemp("logs")) as started:
        started.worker(slots="8")
        yield started


@pytest.fixture(scope="module")
async def client(module_settings: Settings) -> AsyncIterator[Client]:
    engine, redis = create_engine(module_settings, service="tests"), connect_redis(module_settings)
    yield Client(create_sessions(engine), DeliveryQueue(redis))
    await redis.aclose()
    await engine.dispose()


async def logged(client: Client, task_id: UUID) -> list[dict[str, Any]]:
    statement = text("SELECT attempt, line, level, message, fields FROM task_logs WHERE task_id = :id ORDER BY id")
    async with client.sessions() as session:
        return [dict(row) for row in (await session.execute(statement, {"id": task_id})).mappings()]


async def test_lines_are_there_while_the_handler_runs_and_each_once_in_the_end(
    nursery: Children, client: Client
) -> None:
    talks = [await client.submit("TALK", payload={"lines": 40, "seconds": 4.0}) for _ in range(4)]
    silent = await client.submit("ECHO")

    async def has_some_and_runs(task_id: UUID) -> bool:
        lines = await logged(client, task_id)  # before the status
        return bool(lines) and (await client.get(task_id)).status == "RUNNING"

    await asyncio.gather(*(eventually_async(partial(has_some_and_runs, task_id)) for task_id in talks))
    for task_id in talks:
        await client.until(task_id)
        assert [line["fields"]["number"] for line in await logged(client, task_id)] == [str(n) for n in range(40)]
    assert await logged(client, silent) == []


async def test_too_many_lines_and_too_much_text_are_cut_with_a_line_that_says_so(
    nursery: Children, client: Client
) -> None:
    many = await client.submit("TALK", payload={"lines": MAX_LOG_LINES + 500})
    long = await client.submit("TALK", payload={"lines": 600, "size": 1_000_000})
    await client.until(many)
    await client.until(long)
    lines, texts = await logged(client, many), await logged(client, long)
    assert [line["message"] for line in lines] == ["talk"] * (MAX_LOG_LINES - 1) + [TRUNCATED]
    assert texts[-1]["message"] == TRUNCATED
    assert 200 < len(texts) < 300


async def test_the_lines_of_a_killed_worker_stay(nursery: Children, client: Client) -> None:
    doomed = nursery.worker(queues="doomed", slots="1")
    task_id = await client.submit("TALK", queue="doomed", payload={"lines": 200, "seconds": 60.0})

    async def has_some() -> bool:
        return len(await logged(client, task_id)) > 3

    await eventually_async(has_some)
    doomed.kill(signal.SIGKILL)
    await asyncio.to_thread(doomed.process.wait, 10)
    numbers = [int(line["fields"]["number"]) for line in await logged(client, task_id)]
    assert numbers == list(range(len(numbers)))


def lines_of(task: Claimed, *numbers: int) -> list[tuple[Claimed, LogLine]]:
    return [(task, LogLine(number, time.monotonic(), "info", f"line {number}", {})) for number in numbers]


async def test_a_line_is_written_once_however_often_it_is_sent_and_not_at_all_without_the_lease(
    client: Client, module_settings: Settings
) -> None:
    task_id = await client.submit("ECHO", deliver=False, queue="nobody")
    async with client.sessions() as session:
        await session.execute(text(REGISTER), {"id": "mine"})
        await session.commit()
    link = Link(module_settings, service="tests")
    connection = await link.get()
    (task,) = await leases.claim(connection, [task_id], worker="mine", held=[], lease_s=60)
    await leases.write_lines(connection, lines_of(task, 1, 2), worker="mine")
    await leases.write_lines(connection, lines_of(task, 1, 2, 3), worker="mine")
    await leases.write_lines(connection, lines_of(task, 4), worker="another's")
    stale = [(replace(task, fence=7), line) for _, line in lines_of(task, 5)]
    await leases.write_lines(connection, stale, worker="mine")
    left = [line for _, line in lines_of(task, 3, 6)]
    assert await leases.finish(connection, [Finished(task, completed(None), left)], worker="mine") == {task_id}
    await leases.write_lines(connection, lines_of(task, 7), worker="mine")
    assert [line["line"] for line in await logged(client, task_id)] == [1, 2, 3, 6]
    await link.drop()
