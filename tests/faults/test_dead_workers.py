"""Workers that die, freeze or lose their way to PostgreSQL while they hold tasks."""

import signal

import httpx2

from faults.scene import DEADLINE_S, Scene, Stopwatch, port_of
from faults.servers import Network
from taskflow_cli.embedded.ports import free_port
from waiting import eventually_async


async def test_1_tasks_of_a_killed_worker_complete_elsewhere_on_a_second_attempt(scene: Scene) -> None:
    """Recovery: from the kill until the last of its tasks has completed elsewhere."""
    await scene.scheduler()
    victim = await scene.worker(slots="20")
    ids = await scene.submit(20, "NAP", lambda _: {"seconds": 60}, max_attempts=2)
    await scene.until("status = 'RUNNING'", count=20)
    victim.kill()
    watch = Stopwatch()
    await scene.query("UPDATE tasks SET payload = '{\"seconds\": 0.1}'")
    await scene.worker(slots="20")
    await scene.until_final(ids)
    recovery_s = watch.read()
    assert await scene.outcomes(ids) == {("lost", "completed")}
    await scene.report("1 kill -9 of a worker mid-task", ids, recovery_s=recovery_s)


async def test_2_a_zombies_late_completion_changes_nothing_and_is_counted(scene: Scene) -> None:
    """The zombie is alive and cut off from PostgreSQL; what it sends arrives after its lease.

    Recovery: from the cut until the last of its tasks has completed elsewhere.
    """
    await scene.scheduler()
    async with Network.to(port_of(scene.servers.postgres.url)) as network:
        port = free_port()
        await scene.worker(network, slots="10", database_timeout_s="60", probe_port=str(port))
        ids = await scene.submit(10, "NAP", lambda _: {"seconds": 1.0})
        await scene.until("status = 'RUNNING'", count=10)
        network.hold()
        watch = Stopwatch()
        await scene.until("status = 'PENDING'", count=1)
        await scene.worker(slots="10")
        await scene.until_final(ids)
        recovery_s = watch.read()
        before = await scene.query("SELECT id, fence, row_version, result, worker_id FROM tasks ORDER BY id")
        network.flow()

        async def discarded() -> bool:
            return scene.logged("attempt.discarded") == len(ids)

        await eventually_async(discarded, DEADLINE_S)
        assert await scene.query("SELECT id, fence, row_version, result, worker_id FROM tasks ORDER BY id") == before
        after = await scene.submit(1)
        await scene.until_final(after)
        async with httpx2.AsyncClient(timeout=10, trust_env=False) as http:
            metrics = (await http.get(f"http://127.0.0.1:{port}/metrics")).text
        assert "taskflow_attempts_discarded_total 10.0" in metrics
    assert await scene.outcomes(ids) == {("lost", "completed")}
    note = f"{scene.logged('attempt.discarded')} late results discarded"
    await scene.report("2 a zombie completes late", ids + after, recovery_s=recovery_s, note=note)


async def test_3_a_worker_frozen_for_three_leases_overwrites_nothing_when_it_wakes_up(scene: Scene) -> None:
    """Three leases of 2 s stand for the 60 s against one of 30 s. Recovery: from the freeze to the last completion."""
    await scene.scheduler()
    frozen = await scene.worker(slots="10")
    ids = await scene.submit(10, "NAP", lambda _: {"seconds": 2.0})
    await scene.until("status = 'RUNNING'", count=10)
    frozen.kill(signal.SIGSTOP)
    watch = Stopwatch()
    await scene.until("status = 'PENDING'", count=1)
    await scene.worker(slots="10")
    await scene.until_final(ids)
    recovery_s = watch.read()

    async def three_leases_passed() -> bool:
        return watch.read() > 6

    await eventually_async(three_leases_passed)
    before = await scene.query("SELECT id, fence, row_version, result, worker_id FROM tasks ORDER BY id")
    frozen.kill(signal.SIGCONT)

    async def discarded() -> bool:
        return scene.logged("attempt.discarded") == len(ids)

    await eventually_async(discarded, DEADLINE_S)
    assert await scene.query("SELECT id, fence, row_version, result, worker_id FROM tasks ORDER BY id") == before
    assert await scene.outcomes(ids) == {("lost", "completed")}
    await scene.report("3 SIGSTOP for three leases, then SIGCONT", ids, recovery_s=recovery_s)


async def test_3b_a_worker_that_takes_back_its_own_lost_task_keeps_the_new_lease(scene: Scene) -> None:
    """The old attempt ignores its interrupt and ends while the new one runs: it must not take the new one along."""
    await scene.scheduler()
    frozen = await scene.worker(slots="2")
    ids = await scene.submit(1, "DEAF", lambda _: {"seconds": 5})
    await scene.until("status = 'RUNNING'")
    frozen.kill(signal.SIGSTOP)
    watch = Stopwatch()
    await scene.until("status = 'PENDING'")
    frozen.kill(signal.SIGCONT)
    await scene.until_final(ids)
    assert await scene.outcomes(ids) == {("lost", "completed")}
    await scene.report("3b a worker takes back its own lost task", ids, recovery_s=watch.read())


async def test_12_a_task_that_kills_its_worker_each_time_fails_and_the_others_go_on(scene: Scene) -> None:
    """Recovery: from the first death until everything has ended. Neighbours may lose attempts with their worker."""
    await scene.scheduler()
    worker = await scene.worker(slots="4")
    poison = await scene.submit(1, "CRASH", max_attempts=3)
    others = await scene.submit(60, "NAP", lambda _: {"seconds": 0.2}, max_attempts=10)

    async def died() -> bool:
        return worker.process.poll() is not None

    await eventually_async(died, DEADLINE_S)
    watch = Stopwatch()

    async def ended() -> bool:
        nonlocal worker
        worker = scene.keep_alive(worker)
        return await scene.count("finished_at IS NOT NULL") == 61

    await eventually_async(ended, DEADLINE_S)
    assert await scene.outcomes(poison) == {("lost", "lost", "lost")}
    assert await scene.query("SELECT status, error ->> 'code' FROM tasks WHERE id = %s", poison[0]) == [
        ("FAILED", "lease_lost")
    ]
    figures = await scene.report("12 a task that kills its worker", poison + others, recovery_s=watch.read())
    assert (figures.completed, figures.failed) == (60, 1)
