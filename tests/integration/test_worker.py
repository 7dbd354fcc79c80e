"""A real worker process: what becomes of tasks, however their handlers end."""

import asyncio
import signal
from typing import Any

import pytest
from redis import Redis
from rq import Queue, Worker
from rq.job import Job
from sqlalchemy import text

from children import Children, Client
from taskflow_core.queue import QUEUE_KEY
from waiting import eventually, eventually_async


async def test_a_task_completes_with_its_result_history_events_and_logs(nursery: Children, client: Client) -> None:
    nursery.worker()
    task_id = await client.submit("NAP", payload={"seconds": 1.5})
    task = await client.until(task_id)
    assert (task.status, task.attempt, task.result) == ("COMPLETED", 1, {"value": 1})
    assert task.progress is not None
    assert task.progress["message"] == "napping"
    assert await client.history(task_id) == [(1, "completed")]
    async with client.sessions() as session:
        kinds = await session.execute(
            text("SELECT kind FROM task_events WHERE task_id = :id ORDER BY id"), {"id": task_id}
        )
        lines = await session.execute(text("SELECT message FROM task_logs WHERE task_id = :id"), {"id": task_id})
        assert list(kinds.scalars()) == ["task.created", "task.started", "task.completed"]
        assert list(lines.scalars()) == ["nap.over"]


async def test_nothing_of_a_finished_task_stays_in_redis(nursery: Children, client: Client) -> None:
    nursery.worker()
    await client.until(await client.submit("ECHO"))

    async def no_job_is_left() -> bool:
        return not [key async for key in client.queue.redis.scan_iter("rq:job:*")]

    await eventually_async(no_job_is_left)


@pytest.mark.parametrize(
    ("type_", "payload", "status", "attempts", "code"),
    [
        ("NAP_SYNC", {"seconds": 0.1}, "COMPLETED", 1, None),
        ("RAISE", {"how": "retry"}, "FAILED", 2, "retry"),
        ("RAISE", {"how": "retry", "until_attempt": 2}, "COMPLETED", 2, None),
        ("RAISE", {"how": "non_retryable"}, "FAILED", 1, "no_use"),
        ("RAISE", {"how": "exit"}, "FAILED", 2, "exception"),
        ("RAISE", {"how": "base"}, "FAILED", 2, "exception"),
        ("RAISE", {"how": "nul"}, "FAILED", 2, "exception"),
        ("RAISE", {"how": "nonsense"}, "FAILED", 1, "invalid_payload"),
        ("GONE", {}, "FAILED", 1, "unknown_type"),
        ("ODD", {"what": "big"}, "FAILED", 1, "result_too_large"),
        ("ODD", {"what": "nul"}, "FAILED", 1, "invalid_result"),
        ("ODD", {"what": "other"}, "FAILED", 1, "invalid_result"),
        ("ODD", {"what": "thread"}, "COMPLETED", 1, None),
        ("ODD", {"what": "stdout"}, "COMPLETED", 1, None),
    ],
)
async def test_every_end_of_a_handler_ends_the_task(
    nursery: Children,
    client: Client,
    type_: str,
    payload: dict[str, Any],
    status: str,
    attempts: int,
    code: str | None,
) -> None:
    nursery.worker()
    nursery.scheduler()
    task_id = await client.submit(type_, payload=payload, max_attempts=2)
    task = await client.until(task_id)
    assert (task.status, task.attempt) == (status, attempts)
    assert (task.error or {}).get("code") == code or status == "COMPLETED"
    after = await client.until(await client.submit("ECHO", payload={"value": "still here"}))
    assert after.status == "COMPLETED"


async def test_a_snoozed_task_burns_no_attempt(nursery: Children, client: Client) -> None:
    nursery.worker()
    nursery.scheduler()
    task_id = await client.submit("RAISE", payload={"how": "snooze"}, max_attempts=1)
    await eventually_async(lambda: _has_outcomes(client, task_id, "snoozed", 2))
    assert (await client.get(task_id)).attempt <= 1


async def test_a_delayed_task_waits_for_its_time(nursery: Children, client: Client) -> None:
    from datetime import timedelta

    from taskflow_core.clock import utc_now

    nursery.worker()
    nursery.scheduler()
    due = utc_now() + timedelta(seconds=1)
    task = await client.until(await client.submit("ECHO", run_at=due))
    assert task.started_at is not None
    assert task.started_at >= due


@pytest.mark.parametrize("type_", ["NAP", "NAP_SYNC"])
async def test_a_stopped_worker_gives_its_task_back_without_burning_an_attempt(
    nursery: Children, client: Client, type_: str
) -> None:
    worker = nursery.worker(shutdown_grace_s="0.2")
    task_id = await client.submit(type_, payload={"seconds": 60}, max_attempts=1, timeout_s=100)
    await client.until(task_id, "RUNNING")
    assert worker.stop() == 0
    task = await client.get(task_id)
    assert (task.status, task.attempt, task.lease_expires_at) == ("PENDING", 0, None)
    assert await client.history(task_id) == [(1, "released")]
    async with client.sessions() as session:
        assert (await session.execute(text("SELECT count(*) FROM workers"))).scalar_one() == 0


async def test_a_stopped_worker_lets_a_short_task_end(nursery: Children, client: Client) -> None:
    worker = nursery.worker()
    task_id = await client.submit("NAP", payload={"seconds": 1})
    await client.until(task_id, "RUNNING")
    assert worker.stop() == 0
    assert (await client.get(task_id)).status == "COMPLETED"


async def test_a_killed_workers_task_runs_again_elsewhere_and_its_write_happens_once(
    nursery: Children, client: Client
) -> None:
    nursery.scheduler(lease_sweep_interval_s="0.3")
    nursery.worker(lease_s="1.5")
    task_id = await client.submit("NOTE", payload={"key": "once", "then": "crash"})
    await client.until(task_id, "PENDING")
    nursery.worker(lease_s="1.5")
    task = await client.until(task_id)
    assert (task.status, task.attempt) == ("COMPLETED", 2)
    assert await client.history(task_id) == [(1, "lost"), (2, "completed")]
    async with client.sessions() as session:
        notes = await session.execute(text("SELECT value FROM platform_state WHERE key = 'once'"))
        assert notes.scalars().all() == ["1"]


async def test_what_a_failing_handler_wrote_through_its_session_is_gone(nursery: Children, client: Client) -> None:
    nursery.worker()
    task = await client.until(await client.submit("NOTE", payload={"key": "never", "then": "raise"}, max_attempts=1))
    assert task.status == "FAILED"
    async with client.sessions() as session:
        notes = await session.execute(text("SELECT value FROM platform_state WHERE key = 'never'"))
        assert notes.scalars().all() == []


async def test_a_task_that_kills_its_worker_each_time_becomes_failed(nursery: Children, client: Client) -> None:
    nursery.scheduler(lease_sweep_interval_s="0.3")
    task_id = await client.submit("CRASH", max_attempts=2)
    for _ in range(2):
        worker = nursery.worker(lease_s="1")
        eventually(lambda worker=worker: worker.process.poll() is not None)  # type: ignore[misc]
    task = await client.until(task_id)
    assert (task.status, task.error and task.error["code"]) == ("FAILED", "lease_lost")
    assert await client.history(task_id) == [(1, "lost"), (2, "lost")]


async def test_a_frozen_worker_that_wakes_up_late_changes_nothing(nursery: Children, client: Client) -> None:
    nursery.scheduler(lease_sweep_interval_s="0.3")
    zombie = nursery.worker(lease_s="1.5", slots="1")
    task_id = await client.submit("NAP", payload={"seconds": 2, "steps": 2})
    await client.until(task_id, "RUNNING")
    zombie.kill(signal.SIGSTOP)
    await client.until(task_id, "PENDING")
    nursery.worker(lease_s="1.5")
    assert (await client.until(task_id)).status == "COMPLETED"
    zombie.kill(signal.SIGCONT)
    eventually(lambda: zombie.said("attempt.discarded") or zombie.said("lease.lost"))
    task = await client.get(task_id)
    assert (task.status, task.result, task.attempt) == ("COMPLETED", {"value": 2}, 2)


@pytest.mark.parametrize("type_", ["NAP", "NAP_SYNC"])
async def test_a_running_task_stops_when_it_is_canceled(nursery: Children, client: Client, type_: str) -> None:
    nursery.worker()
    task_id = await client.submit(type_, payload={"seconds": 60, "steps": 100})
    await client.until(task_id, "RUNNING")
    await client.cancel(task_id)
    task = await client.until(task_id)
    assert task.status == "CANCELED"
    assert await client.history(task_id) == [(1, "canceled")]


@pytest.mark.parametrize("type_", ["NAP", "NAP_SYNC"])
async def test_an_attempt_that_outlives_its_timeout_is_stopped(nursery: Children, client: Client, type_: str) -> None:
    nursery.worker()
    task = await client.until(await client.submit(type_, payload={"seconds": 60}, timeout_s=1, max_attempts=1))
    assert (task.status, task.error and task.error["code"]) == ("FAILED", "timeout")


async def test_a_handler_that_ignores_its_timeout_ends_with_its_process_and_its_neighbours_are_released(
    nursery: Children, client: Client
) -> None:
    worker = nursery.worker()
    stubborn = await client.submit("STUBBORN", payload={"seconds": 120}, timeout_s=1, max_attempts=1)
    neighbour = await client.submit("NAP", payload={"seconds": 120}, timeout_s=300)
    await client.until(neighbour, "RUNNING")
    assert worker.process.wait(timeout=40) == 70
    task, other = await client.get(stubborn), await client.get(neighbour)
    assert (task.status, task.error and task.error["code"]) == ("FAILED", "timeout")
    assert (other.status, other.attempt) == ("PENDING", 0)


async def test_a_hundred_deliveries_of_one_task_are_claimed_once(nursery: Children, client: Client) -> None:
    task_id = await client.submit("NAP", payload={"seconds": 0.2})
    task = await client.get(task_id)
    await asyncio.gather(*(client.queue.deliver([task]) for _ in range(99)))
    nursery.worker(slots="50")
    nursery.worker(slots="50")
    await client.until(task_id)
    await eventually_async(lambda: _is_empty(client, "default"))
    assert await client.history(task_id) == [(1, "completed")]


async def test_foreign_and_broken_jobs_in_a_queue_are_refused_and_the_worker_goes_on(
    nursery: Children, client: Client
) -> None:
    redis = client.queue.redis
    for job_id in ("nonsense", "01a20e00-53d9-757d-99d5-52b281042332", "\xff\xfe", "x" * 5000, "-" * 40):
        await redis.rpush(QUEUE_KEY + "default", job_id.encode("latin-1"))
    task_id = await client.submit("ECHO")
    worker = nursery.worker()
    assert (await client.until(task_id)).status == "COMPLETED"
    assert worker.said("delivery.refused")


async def test_rq_lists_the_worker_its_queues_and_the_waiting_jobs(
    nursery: Children, client: Client, redis_url: str
) -> None:
    await client.submit("ECHO", queue="reports")
    nursery.worker(queues="high,default")
    with Redis.from_url(redis_url) as connection:
        eventually(lambda: Worker.all(connection=connection, serializer="json"))
        (worker,) = Worker.all(connection=connection, serializer="json")
        assert worker.queue_names() == ["high", "default"]
        (name,) = [queue.name for queue in Queue.all(connection=connection, serializer="json") if queue.count]
        assert name == "reports"
        (job_id,) = Queue("reports", connection=connection, serializer="json").job_ids
        job = Job.fetch(job_id, connection=connection, serializer="json")
        assert (job.func_name, job.origin, job.get_status()) == ("taskflow_worker.job.run", "reports", "queued")


async def test_deliveries_that_redis_lost_are_found(nursery: Children, client: Client) -> None:
    task_ids = [await client.submit("ECHO", queue="low") for _ in range(20)]
    await client.queue.redis.flushall()
    nursery.scheduler()
    nursery.worker()
    for task_id in task_ids:
        assert (await client.until(task_id)).attempt == 1


async def test_a_delivery_that_a_dead_client_popped_is_found(nursery: Children, client: Client) -> None:
    nursery.scheduler()
    lost = await client.submit("ECHO")
    await client.queue.redis.lpop(QUEUE_KEY + "default")
    nursery.worker()
    assert (await client.until(lost)).status == "COMPLETED"


async def _has_outcomes(client: Client, task_id: Any, outcome: str, count: int) -> bool:
    return [name for _, name in await client.history(task_id)].count(outcome) >= count


async def _is_empty(client: Client, queue: str) -> bool:
    return int(await client.queue.redis.llen(QUEUE_KEY + queue)) == 0
