"""The tail of all events: in order, none skipped, whatever order transactions commit in."""

from collections.abc import AsyncIterator
from uuid import uuid4

import psycopg
import pytest
from psycopg import AsyncConnection

from taskflow_core.database import plain_url
from taskflow_core.events import Event
from taskflow_core.links import Link
from taskflow_core.settings import Settings
from taskflow_core.tail import LIMIT, Tail
from waiting import eventually_async

INSERT = "INSERT INTO task_events (task_id, owner_id, kind, attempt) VALUES (%s, %s, %s, 0) RETURNING id"


@pytest.fixture
async def connection(module_settings: Settings) -> AsyncIterator[AsyncConnection[object]]:
    link = Link(module_settings, service="tests")
    yield await link.get()
    await link.drop()


@pytest.fixture
async def tail(connection: AsyncConnection[object]) -> Tail:
    return await started(connection)


async def started(connection: AsyncConnection[object]) -> Tail:
    tail = Tail()
    while not tail.ready:
        assert await tail.read(connection) == []
    return tail


async def open_writer(settings: Settings) -> AsyncConnection[object]:
    return await AsyncConnection.connect(plain_url(settings.database_url))


async def write(writer: AsyncConnection[object], kind: str = "task.started") -> int:
    row = await (await writer.execute(INSERT, [uuid4(), uuid4(), kind])).fetchone()
    assert isinstance(row, tuple)
    return int(row[0])


async def drain(tail: Tail, connection: AsyncConnection[object], *, last: int) -> list[int]:
    """Read until the tail has passed `last`; return the ids, and check that they came in order."""
    found: list[Event] = []

    async def passed() -> bool:
        found.extend(await tail.read(connection))
        return tail.position >= last

    await eventually_async(passed)
    ids = [event.id for event in found]
    assert ids == sorted(set(ids))
    return ids


async def test_a_smaller_id_that_commits_later_is_waited_for(
    module_settings: Settings, connection: AsyncConnection[object], tail: Tail
) -> None:
    slow, fast = await open_writer(module_settings), await open_writer(module_settings)
    first, second = await write(slow), await write(fast)
    await fast.commit()
    for _ in range(5):
        assert await tail.read(connection) == [], "the greater id is visible, and held back"
    await slow.commit()
    assert await drain(tail, connection, last=second) == [first, second]
    await slow.close()
    await fast.close()


async def test_a_gap_of_a_rollback_is_passed_over(
    module_settings: Settings, connection: AsyncConnection[object], tail: Tail
) -> None:
    gone, other = await open_writer(module_settings), await open_writer(module_settings)
    for _ in range(3):
        await write(gone)
        await gone.rollback()
    kept = await write(other)
    await other.commit()
    assert await drain(tail, connection, last=kept) == [kept]
    await gone.close()
    await other.close()


async def test_a_long_transaction_that_writes_no_event_holds_nothing_up(
    module_settings: Settings, connection: AsyncConnection[object], tail: Tail
) -> None:
    handler, gone, other = [await open_writer(module_settings) for _ in range(3)]
    await handler.execute("INSERT INTO platform_state (key, value) VALUES ('note', '1')")
    await write(gone)
    await gone.rollback()
    kept = await write(other)
    await other.commit()
    assert await drain(tail, connection, last=kept) == [kept]
    for writer in (handler, gone, other):
        await writer.close()


async def test_a_start_waits_for_those_who_write_already(
    module_settings: Settings, connection: AsyncConnection[object]
) -> None:
    early, late = await open_writer(module_settings), await open_writer(module_settings)
    await write(early)
    tail = Tail()
    for _ in range(5):
        assert await tail.read(connection) == []
    assert not tail.ready, "what commits after the start must be told, and this id lies before it"
    await early.commit()
    tail = await started(connection)
    kept = await write(late)
    await late.commit()
    assert await drain(tail, connection, last=kept) == [kept]
    await early.close()
    await late.close()


async def test_many_writers_in_any_order_lose_and_repeat_nothing(
    module_settings: Settings, connection: AsyncConnection[object], tail: Tail
) -> None:
    writers = [await open_writer(module_settings) for _ in range(6)]
    expected: set[int] = set()
    pending: list[list[int]] = [[] for _ in writers]
    seen: list[int] = []
    for step in range(400):
        index = (step * 7 + step // 5) % len(writers)
        pending[index].append(await write(writers[index]))
        if step % 11 == index:
            await writers[index].rollback()
            pending[index] = []
        elif step % 3 == index % 3:
            await writers[index].commit()
            expected |= set(pending[index])
            pending[index] = []
        if step % 4 == 0:
            seen += [event.id for event in await tail.read(connection)]
    for writer, ids in zip(writers, pending, strict=True):
        await writer.commit()
        expected |= set(ids)
        await writer.close()
    seen += await drain(tail, connection, last=max(expected))
    assert seen == sorted(expected)


async def test_more_than_one_read_holds_comes_in_steps(
    module_settings: Settings, connection: AsyncConnection[object], tail: Tail
) -> None:
    async with await AsyncConnection.connect(plain_url(module_settings.database_url)) as writer:
        before = await write(writer)
        await writer.execute(
            "INSERT INTO task_events (task_id, owner_id, kind, attempt) "
            "SELECT gen_random_uuid(), gen_random_uuid(), 'task.started', 1 FROM generate_series(1, %s)",
            [LIMIT * 2],
        )
    await writer.close()
    ids = await drain(tail, connection, last=before + LIMIT * 2)
    assert ids == list(range(before, before + LIMIT * 2 + 1))


async def test_ids_that_a_failover_took_back_are_told_again(
    module_settings: Settings, connection: AsyncConnection[object], tail: Tail
) -> None:
    with psycopg.connect(plain_url(module_settings.database_url), autocommit=True) as admin:
        admin.execute("DELETE FROM task_events WHERE id > %s", [tail.position - 100])
        admin.execute("SELECT setval('task_events_id_seq', %s)", [tail.position - 100])
    await tail.resume(connection)
    writer = await open_writer(module_settings)
    again = await write(writer)
    await writer.commit()
    await writer.close()
    assert await drain(tail, connection, last=again) == [again]
