"""Every connection in use: in the API, and by a handler in a worker."""

import asyncio

from psycopg import AsyncConnection

from faults.scene import Scene, Stopwatch
from taskflow_core.database import plain_url
from waiting import eventually_async


async def test_17_an_api_whose_pool_is_exhausted_answers_503_and_recovers(scene: Scene) -> None:
    """A lock on the table holds both connections of the pool. Recovery: from the end of the lock to the first 201."""
    await scene.scheduler()
    await scene.worker()
    async with scene.api(database_pool_size="2", database_timeout_s="1") as api:
        async with await AsyncConnection.connect(plain_url(scene.settings.database_url)) as holder:
            await holder.execute("LOCK TABLE tasks IN EXCLUSIVE MODE")
            answers = await asyncio.gather(*(api.post() for _ in range(20)))
        watch = Stopwatch()
        for answer in answers:
            assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
            assert int(answer.headers["retry-after"]) >= 1

        async def accepted() -> bool:
            return (await api.post()).status_code == 201

        await eventually_async(accepted)
        recovery_s = watch.read()
    ids = [row[0] for row in await scene.query("SELECT id FROM tasks")]
    assert len(ids) == 1, "what was answered with 503 was not created"
    await scene.until_final(ids)
    await scene.report("17 the API's pool exhausted", ids, recovery_s=recovery_s)


async def test_17b_a_handler_that_takes_every_connection_holds_up_no_other_task(scene: Scene) -> None:
    """The hog waits in vain for more connections than there are; meanwhile its worker takes and ends other tasks."""
    await scene.worker(slots="4", database_timeout_s="2")
    hog = await scene.submit(1, "HOG", lambda _: {"seconds": 1.5}, max_attempts=1)
    await scene.until("status = 'RUNNING'")
    others = await scene.submit(100)
    await scene.until_final(others)
    assert await scene.count("status = 'RUNNING' AND type = 'HOG'") == 1
    await scene.until_final(hog)
    assert await scene.outcomes(hog) == {("failed",)}
    after = await scene.submit(1, "NOTE", lambda _: {"key": "after"})
    await scene.until_final(after)
    figures = await scene.report("17b a handler takes every connection", hog + others + after)
    assert (figures.completed, figures.failed) == (101, 1)
