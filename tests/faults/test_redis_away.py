"""Redis killed or frozen under the whole platform."""

import asyncio
import signal
from uuid import UUID

import pytest

from faults.scene import Api, Scene, Stopwatch, address_through, port_of
from faults.servers import Network
from waiting import eventually_async


async def test_7_with_redis_down_tasks_are_accepted_committed_and_claimed_from_the_table(scene: Scene) -> None:
    """Redis stays down until 20 tasks have come through the table, instead of for 60 s.

    Recovery: from its return until the backlog is drained, half of it created in the last moment of the outage.
    """
    await scene.scheduler()
    await scene.worker(slots="8")
    async with scene.api() as api:
        running = await scene.submit(8, "NAP", lambda _: {"seconds": 2.0})
        await scene.until("status = 'RUNNING'", count=8)
        scene.servers.valkey.stop(signal.SIGKILL)
        early = await accepted(api, 20)
        await scene.until_final(running + early)
        assert scene.logged("redis.back") == 0
        assert (await api.http.get("/health/ready")).json()["status"] == "degraded"
        late = await accepted(api, 100)
        scene.servers.valkey.start()
        watch = Stopwatch()
        late += await accepted(api, 20)
        await scene.until_final(late)
        recovery_s = watch.read()
    ids = running + early + late

    async def back() -> bool:
        return scene.logged("redis.back") > 0

    await eventually_async(back)
    assert await scene.outcomes(ids) == {("completed",)}
    await scene.report("7 Redis killed, started later", ids, recovery_s=recovery_s)


async def test_7b_a_redis_that_does_not_answer_holds_nothing_up_for_longer_than_its_timeout(scene: Scene) -> None:
    """Valkey is frozen: connections open, no answer comes. Recovery: from its return until all have ended."""
    await scene.scheduler(redis_timeout_s="1")
    await scene.worker(slots="8", redis_timeout_s="1.5")
    async with scene.api(redis_timeout_s="1") as api:
        before = await accepted(api, 8)
        await scene.until_final(before)
        scene.servers.valkey.send(signal.SIGSTOP)
        during = await accepted(api, 8)
        await scene.until_final(during)
        late = await accepted(api, 8)
        scene.servers.valkey.send(signal.SIGCONT)
        watch = Stopwatch()
        await scene.until_final(late)
        recovery_s = watch.read()
    ids = before + during + late
    assert await scene.outcomes(ids) == {("completed",)}
    await scene.report("7b Redis frozen, thawed later", ids, recovery_s=recovery_s)


@pytest.mark.parametrize("step", ["EVAL", "SET"])
async def test_7c_the_scheduler_survives_a_redis_that_goes_in_the_middle_of_a_repair(scene: Scene, step: str) -> None:
    """Redis does what the scheduler asks for, and the connection breaks before the answer.

    Recovery: from the break to the last end.
    """
    ids = await scene.submit(20, deliver=False)
    async with Network.to(port_of(scene.servers.valkey.url)) as network:
        network.lose_answer_to(f"\r\n{step}\r\n".encode())
        scheduler = await scene.scheduler(redis_url=address_through(scene.servers.valkey.url, network))

        async def broken() -> bool:
            return network.lost == 1

        await eventually_async(broken)
        watch = Stopwatch()
        await scene.until_marked()
        await scene.worker()
        await scene.until_final(ids)
        recovery_s = watch.read()
        assert scheduler.process.poll() is None, scheduler.log.read_text()
    assert await scene.outcomes(ids) == {("completed",)}
    await scene.report(f"7c Redis gone in the middle of a repair: {step}", ids, recovery_s=recovery_s)


async def accepted(api: Api, count: int) -> list[UUID]:
    """Ask for tasks at once; every one is answered with 201."""
    answers = await asyncio.gather(*(api.post() for _ in range(count)))
    assert {answer.status_code for answer in answers} == {201}
    return [UUID(answer.json()["id"]) for answer in answers]
