"""The API killed at the worst moment: the task is committed, its delivery is not sent."""

import asyncio
from uuid import UUID

import httpx2
import pytest
from redis.asyncio import Redis

from faults.scene import Scene, Stopwatch
from waiting import eventually_async

PAUSE_MS = 60_000


async def test_10_a_task_whose_api_was_killed_between_commit_and_push_starts_soon(scene: Scene) -> None:
    """Valkey holds the push back until its sender is dead, then drops it, and the client asks again under its key.

    Recovery: from the kill to the start.
    """
    async with Redis.from_url(scene.servers.valkey.url, decode_responses=True) as redis:
        await scene.scheduler()
        await scene.until_marked()
        strangers = {client["id"] for client in await redis.client_list()}
        async with scene.api(redis_timeout_s="60") as api:
            await redis.client_pause(PAUSE_MS, all=False)
            request = asyncio.create_task(api.post(key="the-same"))
            await scene.until("status = 'PENDING'")
            assert not request.done()
            api.child.kill()
            watch = Stopwatch()

            async def gone() -> bool:
                return {client["id"] for client in await redis.client_list()} <= strangers

            await eventually_async(gone)
            await redis.client_unpause()
            with pytest.raises(httpx2.TransportError):
                await request
        assert [key async for key in redis.scan_iter("rq:*")] == [], "nothing of the push arrived"
        await scene.worker()
        await scene.until("claimed_at IS NOT NULL", timeout=30)
        recovery_s = watch.read()
        async with scene.api(api) as another:
            again = await another.post(key="the-same")
    assert (again.status_code, again.headers["idempotent-replayed"]) == (201, "true")
    ids = [row[0] for row in await scene.query("SELECT id FROM tasks")]
    assert ids == [UUID(again.json()["id"])]
    await scene.until_final(ids)
    assert await scene.outcomes(ids) == {("completed",)}
    await scene.report("10 API killed between commit and push", ids, recovery_s=recovery_s)
