"""PostgreSQL restarted, crashed and cut off under the whole platform."""

import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from psycopg import AsyncConnection

from faults.scene import LEASE_S, Scene, Stopwatch, port_of
from faults.servers import Network
from taskflow_core.database import plain_url
from taskflow_core.links import Link
from waiting import eventually_async

PATIENT = {"lease_s": "20", "database_timeout_s": "20"}
OURS = "application_name LIKE 'taskflow-%' AND application_name <> 'taskflow-tests'"


@pytest.mark.parametrize(
    ("name", "number"),
    [
        pytest.param("9 PostgreSQL restarted mid-claim, mid-complete", signal.SIGINT, id="restart"),
        pytest.param("9b PostgreSQL crashed mid-claim, mid-complete", signal.SIGQUIT, id="crash"),
    ],
)
async def test_9_claims_and_ends_that_a_restart_interrupts_are_done_again(
    scene: Scene, name: str, number: signal.Signals
) -> None:
    """Ends and a claim hang on locks when the server goes. Recovery: from its return until all have completed."""
    await scene.scheduler()
    await scene.worker(slots="16", **PATIENT)
    async with scene.api() as api:
        ids = await scene.submit(8, "NAP", lambda _: {"seconds": 1.0})
        await scene.until("status = 'RUNNING'", count=8)
        async with locks(scene):
            ids += await scene.submit(4, "NAP", lambda _: {"seconds": 0.1})
            await hanging(scene, "taskflow-worker-finish")
            await hanging(scene, "taskflow-worker-claim")
            scene.servers.postgres.stop(number)
        refused = await api.post()
        assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
        assert int(refused.headers["retry-after"]) >= 1
        scene.servers.postgres.start()
        watch = Stopwatch()

        async def accepted() -> bool:
            return (await api.post()).status_code == 201

        await eventually_async(accepted)
        note = f"API back after {watch.read():.1f} s"
        await scene.until_final(ids)
        recovery_s = watch.read()
    assert scene.logged("finish.failed") >= 1
    assert scene.logged("claim.failed") >= 1
    assert await scene.outcomes(ids) == {("completed",)}
    await scene.report(name, ids, recovery_s=recovery_s, note=note)


async def test_9c_every_connection_terminated_again_and_again_doubles_and_loses_nothing(scene: Scene) -> None:
    """Recovery: from the last blow until all have completed."""
    await scene.scheduler()
    await scene.worker(slots="16", **PATIENT)
    await scene.worker(slots="16", **PATIENT)
    ids = await scene.submit(600, "NAP", lambda number: {"seconds": number % 10 / 20})
    ids += await scene.submit(40, "NOTE", lambda number: {"key": f"note-{number}", "seconds": 0.1}, max_attempts=20)
    for part in range(1, 8):
        await scene.until("finished_at IS NOT NULL", count=part * 60)
        await scene.query(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OURS}")  # noqa: S608 - constant
    watch = Stopwatch()
    await scene.until_final(ids)
    recovery_s = watch.read()
    notes = await scene.query("SELECT DISTINCT value FROM platform_state WHERE key LIKE 'note-%'")
    assert notes == [("1",)], "what a handler wrote in the completing transaction happened once"
    figures = await scene.report("9c connections terminated 7 times", ids, recovery_s=recovery_s)
    assert figures.completed == len(ids)


@pytest.mark.parametrize("type_", ["NAP", "NOTE"])
@pytest.mark.parametrize("lost", ["claim", "end"])
async def test_9d_a_commit_whose_answer_was_lost_is_resolved(scene: Scene, type_: str, lost: str) -> None:
    """PostgreSQL has committed, the connection breaks before the worker reads it. Recovery: from then to the end."""
    async with Network.to(port_of(scene.servers.postgres.url)) as network:
        await scene.worker(network, slots="4", **PATIENT)
        request = {"claim": b"WITH holder AS", "end": b"COMMIT" if type_ == "NOTE" else b"INSERT INTO task_attempts"}
        if lost == "claim":
            network.lose_answer_to(request[lost])
        ids = await scene.submit(1, type_, lambda _: {"key": "note", "seconds": 1.0}, max_attempts=1)
        await scene.until("claimed_at IS NOT NULL")
        if lost == "end":
            network.lose_answer_to(request[lost])

        async def broken() -> bool:
            return network.lost == 1

        await eventually_async(broken)
        watch = Stopwatch()
        await scene.until_final(ids)
        recovery_s = watch.read()
        after = await scene.submit(1)
        await scene.until_final(after)
    assert await scene.outcomes(ids) == {("completed",)}
    notes = await scene.query("SELECT value FROM platform_state WHERE key = 'note'")
    assert notes == ([("1",)] if type_ == "NOTE" else [])
    await scene.report(f"9d answer lost: {lost} of {type_}", ids + after, recovery_s=recovery_s)


async def test_9e_a_claim_that_its_dead_connection_still_makes_is_adopted(scene: Scene) -> None:
    """The claim waits for a lock when its connection breaks; PostgreSQL does not notice, and claims afterwards."""
    async with Network.to(port_of(scene.servers.postgres.url)) as network:
        await scene.worker(network, slots="4", **PATIENT)
        ids = await scene.submit(1, "NAP", lambda _: {"seconds": 0.1}, max_attempts=1, deliver=False)
        async with await AsyncConnection.connect(plain_url(scene.settings.database_url)) as holder:
            await holder.execute("SELECT 1 FROM tasks FOR UPDATE")
            await scene.deliver()
            await hanging(scene, "taskflow-worker-claim")
            network.cut()
            await hanging(scene, "taskflow-worker-claim", count=2)
        watch = Stopwatch()
        await scene.until_final(ids)
    assert await scene.outcomes(ids) == {("completed",)}
    await scene.report("9e claimed by a dead connection", ids, recovery_s=watch.read())


async def test_9f_postgres_away_for_longer_than_a_lease_burns_no_attempt(scene: Scene) -> None:
    """Down for two leases: what ran meanwhile is written afterwards. Recovery: from its return to the last end."""
    await scene.scheduler(database_timeout_s="2")
    await scene.worker(slots="16", database_timeout_s="2")
    ids = await scene.submit(60, "NAP", lambda number: {"seconds": number % 10 / 4})
    await scene.until("status = 'RUNNING'", count=8)
    scene.servers.postgres.stop(signal.SIGINT)
    await two_leases_pass()
    scene.servers.postgres.start()
    watch = Stopwatch()
    await scene.until_final(ids)
    assert await scene.outcomes(ids) == {("completed",)}
    figures = await scene.report("9f PostgreSQL down for two leases", ids, recovery_s=watch.read())
    assert figures.completed == 60


async def test_9h_a_worker_that_is_told_to_stop_while_postgres_is_away_burns_no_attempt(scene: Scene) -> None:
    """Down for two leases: half of the tasks end meanwhile, half are given back when the grace ends, after its return.

    Every task has one attempt. Recovery: from the return until the worker is gone.
    """
    await scene.scheduler(database_timeout_s="2")
    worker = await scene.worker(slots="8", database_timeout_s="2", shutdown_grace_s="6")
    ids = await scene.submit(8, "NAP", lambda number: {"seconds": 2.0 if number % 2 else 9.0}, max_attempts=1)
    await scene.until("status = 'RUNNING'", count=8)
    scene.servers.postgres.stop(signal.SIGINT)
    worker.kill(signal.SIGTERM)
    await two_leases_pass()
    scene.servers.postgres.start()
    watch = Stopwatch()

    async def has_ended() -> bool:
        return worker.process.poll() is not None

    await eventually_async(has_ended)
    recovery_s = watch.read()
    await scene.worker(slots="8")
    await scene.until_final(ids)
    assert await scene.outcomes(ids) == {("completed",), ("released", "completed")}
    figures = await scene.report("9h SIGTERM while PostgreSQL is down", ids, recovery_s=recovery_s)
    assert figures.completed == len(ids)


async def two_leases_pass() -> None:
    down = Stopwatch()

    async def passed() -> bool:
        return down.read() > 2 * LEASE_S

    await eventually_async(passed)


async def test_9g_a_connection_gives_up_a_server_that_vanished_without_a_word(scene: Scene) -> None:
    """Nothing here can drop packets on their way: what the kernel was told is looked at instead."""
    link = Link(scene.settings, service="tests")
    connection = await link.get()
    with socket.socket(fileno=os.dup(connection.fileno())) as wire:
        given_up_ms = wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    await link.drop()
    assert given_up_ms == scene.settings.database_timeout_s * 1000


@asynccontextmanager
async def locks(scene: Scene) -> AsyncIterator[None]:
    """Lock all tasks and workers, so that ends and claims hang; ready for a server that goes away meanwhile."""
    holder: AsyncConnection[Any] = await AsyncConnection.connect(plain_url(scene.settings.database_url))
    await holder.execute("SELECT 1 FROM tasks FOR UPDATE")
    await holder.execute("SELECT 1 FROM workers FOR UPDATE")
    try:
        yield
    finally:
        await holder.close()


async def hanging(scene: Scene, application: str, *, count: int = 1) -> None:
    """Wait until so many connections of that name wait for a lock."""

    async def waits() -> bool:
        statement = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND wait_event_type = 'Lock'"
        return bool((await scene.query(statement, application))[0][0] >= count)

    await eventually_async(waits)
