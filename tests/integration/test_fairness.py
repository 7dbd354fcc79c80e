"""Who runs when: lanes, priorities, paused queues, limits of types and owners, and life without Redis."""

import asyncio
import urllib.error
import urllib.request
from datetime import datetime

from sqlalchemy import text

from children import Children, Client
from taskflow_cli.embedded.ports import free_port
from taskflow_core.database import Sessions
from taskflow_core.lanes import CROWD
from waiting import eventually


async def test_urgent_tasks_run_before_the_others(nursery: Children, client: Client) -> None:
    low = [await client.submit("ECHO", priority=-1) for _ in range(3)]
    high = [await client.submit("ECHO", priority=1) for _ in range(3)]
    nursery.worker(slots="1")
    tasks = [await client.until(task_id) for task_id in low + high]
    starts = [task.claimed_at for task in tasks if task.claimed_at is not None]
    assert max(starts[3:]) < min(starts[:3])


async def test_a_crowd_of_one_owner_does_not_stand_in_front_of_another(
    nursery: Children, client: Client, sessions: Sessions
) -> None:
    for _ in range(CROWD + 60):
        await client.submit("ECHO")
    other = Client(sessions, client.queue)
    task_id = await other.submit("ECHO")
    nursery.worker(slots="1")
    started = (await other.until(task_id)).claimed_at
    assert started is not None
    async with sessions() as session:
        query = text("SELECT count(*) FROM tasks WHERE owner_id = :owner AND claimed_at < :started")
        before = await session.execute(query, {"owner": client.actor.user_id, "started": started})
        assert before.scalar_one() <= CROWD + 30


async def test_nothing_is_taken_from_a_paused_queue_until_it_is_resumed(nursery: Children, client: Client) -> None:
    await _execute(client, "INSERT INTO queues (name, paused_at) VALUES ('default', now())")
    nursery.worker()
    open_ = await client.until(await client.submit("ECHO", queue="low"))
    assert open_.status == "COMPLETED"
    waits = await client.submit("ECHO")
    await client.until(await client.submit("NAP", queue="low", payload={"seconds": 1.5}))
    assert (await client.get(waits)).status == "PENDING"
    await _execute(client, "UPDATE queues SET paused_at = NULL")
    assert (await client.until(waits)).status == "COMPLETED"


async def test_a_types_limit_holds_over_all_workers(nursery: Children, client: Client) -> None:
    task_ids = [await client.submit("SINGLE", payload={"seconds": 0.4}) for _ in range(8)]
    nursery.scheduler()
    nursery.worker()
    nursery.worker()
    tasks = [await client.until(task_id) for task_id in task_ids]
    assert {(task.status, task.attempt) for task in tasks} == {("COMPLETED", 1)}
    assert _most_at_once([(task.claimed_at, task.finished_at) for task in tasks]) <= 2


async def test_an_owners_limit_leaves_slots_for_others(nursery: Children, client: Client, sessions: Sessions) -> None:
    mine = [await client.submit("NAP", payload={"seconds": 0.5}) for _ in range(6)]
    other = Client(sessions, client.queue)
    theirs = await other.submit("ECHO")
    nursery.scheduler()
    nursery.worker(max_running_per_owner="2", slots="4")
    await other.until(theirs)
    tasks = [await client.until(task_id) for task_id in mine]
    assert _most_at_once([(task.claimed_at, task.finished_at) for task in tasks]) <= 2


async def test_without_redis_workers_take_tasks_from_the_table(
    nursery: Children, client: Client, env: dict[str, str]
) -> None:
    nowhere = f"redis://127.0.0.1:{free_port()}/0"
    env["TASKFLOW_REDIS_URL"] = nowhere
    nursery.worker()
    task_ids = [await client.submit("ECHO", deliver=False) for _ in range(5)]
    tasks = await asyncio.gather(*(client.until(task_id) for task_id in task_ids))
    assert {(task.status, task.attempt) for task in tasks} == {("COMPLETED", 1)}


async def test_a_worker_proves_its_progress_over_http(nursery: Children, client: Client) -> None:
    port = free_port()
    nursery.worker(probe_port=str(port))
    assert eventually(lambda: _fetch(port, "/health/live")) == (200, "ok\n")
    assert _fetch(port, "/health/ready") == (200, "ok\n")
    status, metrics = _fetch(port, "/metrics")
    assert (status, "taskflow_worker_slots 16.0" in metrics) == (200, True)
    await client.until(await client.submit("ECHO"))
    eventually(lambda: 'taskflow_attempts_total{outcome="completed",type="ECHO"} 1.0' in _fetch(port, "/metrics")[1])
    eventually(lambda: 'taskflow_attempt_run_seconds_count{type="ECHO"} 1.0' in _fetch(port, "/metrics")[1])
    assert _fetch(port, "/elsewhere")[0] == 404


async def _execute(client: Client, statement: str) -> None:
    async with client.sessions() as session:
        await session.execute(text(statement))
        await session.commit()


def _most_at_once(spans: list[tuple[datetime | None, datetime | None]]) -> int:
    edges = [(moment, step) for span in spans for moment, step in zip(span, (1, -1), strict=True) if moment]
    running = most = 0
    for _, step in sorted(edges, key=lambda edge: (edge[0], edge[1])):
        running += step
        most = max(most, running)
    return most


def _fetch(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
