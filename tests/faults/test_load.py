"""Load of one owner beside another's, and kills of everything in turn."""

import asyncio
import random
import signal
import statistics
from uuid import uuid4

from faults.scene import Scene, Stopwatch

FAILING = 10_000
LOAD_TIMEOUT_S = 150
KILLS_S = 20.0


async def test_15_ten_thousand_failing_tasks_of_one_owner_do_not_hold_up_another(scene: Scene) -> None:
    """Each failing task is tried twice. 100 tasks of another owner arrive one by one meanwhile.

    Recovery: the 95th percentile of the waits of the other owner's tasks until they are picked up.
    """
    await scene.scheduler()
    failing = await scene.submit(FAILING, "BREAK", lambda _: {}, max_attempts=2)
    await asyncio.gather(scene.worker(), scene.worker())
    await scene.until("attempt > 0", count=200)
    other = uuid4()
    quick = [task_id for _ in range(100) for task_id in await scene.submit(1, owner=other)]
    assert await scene.count("owner_id <> %s AND finished_at IS NULL", other) > 1000, "the load outlasts the others"
    await scene.until_final(quick)
    waits = await scene.query(
        "SELECT extract(epoch FROM claimed_at - run_at)::float8 FROM tasks WHERE owner_id = %s", other
    )
    p95 = statistics.quantiles([row[0] for row in waits], n=20)[-1]
    watch = Stopwatch()
    await scene.until_final(failing, timeout=LOAD_TIMEOUT_S)
    assert await scene.outcomes(failing) == {("retried", "failed")}
    delays = await scene.query(
        "SELECT extract(epoch FROM t.run_at - a.finished_at)::float8 FROM tasks t "
        "JOIN task_attempts a ON a.task_id = t.id AND a.outcome = 'retried'"
    )
    tenths = [sum(low <= row[0] * 10 < low + 1 for row in delays) for low in range(10, 20)]
    assert sum(tenths) >= FAILING * 0.99, "backoffs lie between 1 and 2 s"
    assert min(tenths) > FAILING / 20, "they are spread evenly"
    note = f"p95 pickup; each tenth of the backoff's span holds {min(tenths)} to {max(tenths)} retries"
    figures = await scene.report("15 10,000 failing beside 100", failing + quick, recovery_s=p95, note=note)
    assert (figures.completed, figures.failed) == (100, FAILING)
    assert p95 < 15
    assert watch.read() < LOAD_TIMEOUT_S


async def test_16_everything_killed_again_and_again_loses_and_doubles_nothing(scene: Scene) -> None:
    """For 20 s one of worker, scheduler, Valkey and PostgreSQL is killed about each second and started anew.

    Recovery: from the last start until all have ended.
    """
    scheduler = await scene.scheduler()
    workers = [await scene.worker(slots="8"), await scene.worker(slots="8")]
    ids = await scene.submit(400, "NAP", lambda number: {"seconds": number % 8 / 4}, max_attempts=100)
    ids += await scene.submit(40, "NOTE", lambda number: {"key": f"note-{number}", "seconds": 0.5}, max_attempts=100)
    kills = 0
    watch = Stopwatch()
    while watch.read() < KILLS_S:
        victim = random.choice(("worker", "worker", "scheduler", "valkey", "postgres"))
        if victim == "worker":
            place = random.randrange(len(workers))
            workers[place].kill()
            workers[place].process.wait(timeout=10)
            workers[place] = scene.start_worker(slots="8")
        elif victim == "scheduler":
            scheduler.kill()
            scheduler.process.wait(timeout=10)
            scheduler = await scene.scheduler()
        elif victim == "valkey":
            scene.servers.valkey.stop(signal.SIGKILL)
            scene.servers.valkey.start()
        else:
            scene.servers.postgres.stop(signal.SIGQUIT)
            scene.servers.postgres.start()
        kills += 1
        await asyncio.sleep(random.uniform(0.3, 1.5))
    watch = Stopwatch()
    await scene.until_final(ids)
    recovery_s = watch.read()
    notes = await scene.query("SELECT DISTINCT value FROM platform_state WHERE key LIKE 'note-%'")
    assert notes == [("1",)]
    figures = await scene.report("16 everything killed for 20 s", ids, recovery_s=recovery_s, note=f"{kills} kills")
    assert figures.completed == len(ids)
