"""The intake under everything at once: shared statements, errors of single rows, lost connections, two processes."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from taskflow_core import tasks
from taskflow_core.database import plain_url
from taskflow_core.errors import (
    DuplicateTask,
    IdempotencyConflict,
    IdempotencyMismatch,
    TaskFlowError,
    TooMany,
    Unavailable,
)
from taskflow_core.inserts import Keyed
from taskflow_core.intake import Accepted, Intake
from taskflow_core.queue import DeliveryQueue, connect_redis
from taskflow_core.quotas import OpenTasks
from taskflow_core.settings import Settings
from taskflow_core.tasks import NewTask
from waiting import eventually_async

BACKENDS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'taskflow-api-intake'"


@pytest.fixture
async def queue(settings: Settings) -> AsyncIterator[DeliveryQueue]:
    redis = connect_redis(settings)
    yield DeliveryQueue(redis)
    await redis.aclose()


@pytest.fixture
async def intakes(settings: Settings, queue: DeliveryQueue) -> AsyncIterator[list[Intake]]:
    """Return two, as two API processes have them."""
    made = [Intake(settings, queue, OpenTasks(limit=1000)) for _ in range(2)]
    yield made
    for intake in made:
        await intake.close()


def take(intake: Intake, owner: UUID, *, key: str | None = None, **fields: Any) -> Awaitable[Accepted]:
    row = tasks.draft(NewTask(type="ECHO", payload={"value": 1}, **fields), owner_id=owner)
    body = b'{"id": "%s", "state": "PENDING", "title": "%s"}' % (str(row.id).encode(), row.title.encode())
    keyed = None if key is None else Keyed(key, row.title.encode().ljust(32), body)
    return intake.take(row, keyed)


async def outcome(taken: Awaitable[Accepted]) -> UUID | TaskFlowError:
    try:
        accepted = await taken
    except TaskFlowError as error:
        return error
    return UUID(accepted.replayed["id"]) if accepted.replayed else accepted.row.id


def query(settings: Settings, statement: Any, *parameters: Any) -> list[Any]:
    with psycopg.connect(plain_url(settings.database_url), autocommit=True) as connection:
        return connection.execute(statement, parameters).fetchall()


async def test_one_key_makes_one_task_through_two_processes(intakes: list[Intake], settings: Settings) -> None:
    owner = uuid4()
    answers = await asyncio.gather(*(outcome(take(intakes[n % 2], owner, key="k")) for n in range(50)))
    found = {answer for answer in answers if isinstance(answer, UUID)}
    assert len(found) == 1, answers
    assert all(isinstance(answer, UUID | IdempotencyConflict) for answer in answers)
    assert query(settings, "SELECT id FROM tasks") == [(found.pop(),)]
    assert query(settings, "SELECT count(*) FROM task_events") == [(1,)]


@pytest.mark.parametrize("seed", range(4))
async def test_any_mixture_of_requests_gets_what_each_alone_would_get(
    intakes: list[Intake], settings: Settings, seed: int
) -> None:
    """Keys and dedup keys collide at random: the rows, the events, the kept answers and the answers must agree."""
    chance = random.Random(seed)
    owners = [uuid4() for _ in range(3)]
    asked = [
        {
            "owner": chance.choice(owners),
            "key": chance.choice([None, *"abcdef"]),
            "dedup_key": chance.choice([None, None, *"uvw"]),
            "title": chance.choice(["", "", "other"]),
        }
        for _ in range(150)
    ]

    async def send(request: dict[str, Any]) -> UUID | TaskFlowError:
        await asyncio.sleep(chance.random() * 0.1)
        return await outcome(take(chance.choice(intakes), request.pop("owner"), **request))

    owner_of = [request["owner"] for request in asked]
    answers = await asyncio.gather(*(send(dict(request)) for request in asked))
    rows = dict(query(settings, "SELECT id, owner_id FROM tasks"))
    made = {answer: owner for answer, owner in zip(answers, owner_of, strict=True) if isinstance(answer, UUID)}
    assert made == rows
    events = query(settings, "SELECT task_id FROM task_events")
    assert Counter(row[0] for row in events) == Counter(list(rows))
    kept = query(settings, "SELECT task_id, (response ->> 'id')::uuid FROM idempotency_keys")
    assert all(task_id == in_answer and task_id in rows for task_id, in_answer in kept)
    refusals = [answer for answer in answers if not isinstance(answer, UUID)]
    assert all(isinstance(error, DuplicateTask | IdempotencyMismatch | IdempotencyConflict) for error in refusals)
    held = query(settings, "SELECT owner_id, dedup_key FROM tasks WHERE dedup_key IS NOT NULL")
    assert len(held) == len(set(held))
    without = [place for place, request in enumerate(asked) if not request["key"] and not request["dedup_key"]]
    assert all(isinstance(answers[place], UUID) for place in without)


async def test_a_row_that_postgresql_refuses_fails_alone(intakes: list[Intake], settings: Settings) -> None:
    owner = uuid4()
    bad = {3, 17, 18}
    titles = ["x" * 201 if number in bad else "fine" for number in range(30)]
    answers = await asyncio.gather(
        *(outcome(take(intakes[0], owner, title=title)) for title in titles), return_exceptions=True
    )
    failed = {number for number, answer in enumerate(answers) if isinstance(answer, psycopg.errors.CheckViolation)}
    assert failed == bad
    assert query(settings, "SELECT count(*) FROM tasks") == [(27,)]


async def test_a_duplicate_names_the_holder_also_within_one_statement(intakes: list[Intake]) -> None:
    owner = uuid4()
    answers = await asyncio.gather(*(outcome(take(intakes[0], owner, dedup_key="d")) for _ in range(20)))
    (made,) = [answer for answer in answers if isinstance(answer, UUID)]
    refusals = [answer for answer in answers if isinstance(answer, DuplicateTask)]
    assert len(refusals) == 19
    assert {error.task_id for error in refusals} == {str(made)}


async def test_cut_connections_lose_nothing_double_nothing_and_say_no_wrong_no(
    intakes: list[Intake], settings: Settings
) -> None:
    """Backends die again and again in the middle: who got an id has a task, who got an error has none or asks again."""
    owner = uuid4()
    done = asyncio.Event()

    async def cut() -> None:
        while not done.is_set():
            await asyncio.to_thread(query, settings, BACKENDS)
            await asyncio.sleep(0.005)

    async def sends(number: int) -> list[UUID | TaskFlowError]:
        return [await outcome(take(intakes[number % 2], owner, title=f"{number}-{turn}")) for turn in range(15)]

    cutter = asyncio.create_task(cut())
    answers = [answer for mine in await asyncio.gather(*map(sends, range(16))) for answer in mine]
    done.set()
    await cutter
    made = {answer for answer in answers if isinstance(answer, UUID)}
    assert made, "some got through"
    assert all(isinstance(answer, UUID | Unavailable) for answer in answers)
    rows = query(settings, "SELECT id, title FROM tasks")
    assert made <= {row[0] for row in rows}
    assert len({row[1] for row in rows}) == len(rows)
    events = query(settings, "SELECT count(*) FROM task_events")
    assert events == [(len(rows),)]
    assert isinstance(await outcome(take(intakes[0], owner)), UUID), "it works again by itself"


async def test_who_leaves_takes_nobody_along(intakes: list[Intake], settings: Settings, queue: DeliveryQueue) -> None:
    owner = uuid4()
    waiting = [asyncio.ensure_future(outcome(take(intakes[0], owner))) for _ in range(40)]
    await asyncio.sleep(0)
    for request in waiting[::2]:
        request.cancel()
    answers = await asyncio.gather(*waiting[1::2])
    assert len(set(answers)) == 20
    assert {row[0] for row in query(settings, "SELECT id FROM tasks")} >= set(answers)


async def test_close_writes_and_delivers_what_was_taken_in(settings: Settings, queue: DeliveryQueue) -> None:
    intake = Intake(settings, queue, OpenTasks(limit=1000))
    waiting = [asyncio.ensure_future(outcome(take(intake, uuid4()))) for _ in range(300)]
    await asyncio.sleep(0)
    await intake.close()
    assert all(isinstance(answer, UUID) for answer in await asyncio.gather(*waiting))
    assert await queue.redis.llen("rq:queue:default") == 300


async def test_the_quota_is_exact_in_one_process_and_open_again_when_tasks_end(
    settings: Settings, queue: DeliveryQueue
) -> None:
    intake = Intake(settings, queue, OpenTasks(limit=120))
    owner = uuid4()
    answers = await asyncio.gather(*(outcome(take(intake, owner, key=str(number))) for number in range(150)))
    made = [answer for answer in answers if isinstance(answer, UUID)]
    assert len(made) == 120
    assert all(isinstance(answer, UUID | TooMany) for answer in answers)
    number = answers.index(made[0])
    assert await outcome(take(intake, owner, key=str(number))) == made[0], "a repeated request is no new task"
    assert isinstance(await outcome(take(intake, uuid4())), UUID)
    query(settings, "UPDATE tasks SET status = 'CANCELED', finished_at = now() WHERE id = %s RETURNING id", made[0])

    async def open_again() -> bool:
        return isinstance(await outcome(take(intake, owner)), UUID)

    await eventually_async(open_again)
    assert isinstance(await outcome(take(intake, owner)), TooMany)
    await intake.close()


async def test_a_full_buffer_says_so_at_once(intakes: list[Intake], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskflow_core.batches.ROOM", 10)
    answers = await asyncio.gather(*(outcome(take(intakes[0], uuid4())) for _ in range(30)))
    assert Counter(type(answer) for answer in answers) == {UUID: 10, Unavailable: 20}
