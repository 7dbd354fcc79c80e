"""A real worker process under a drain flag: it acknowledges, takes nothing, and goes on when it is released."""

import socket

from children import Children, Client
from taskflow_core.beacons import BEACON_KEY
from taskflow_operator.drain import Drain
from taskflow_operator.signals import Signals
from waiting import eventually_async

POD = socket.gethostname()


async def test_a_drained_worker_finishes_what_it_holds_takes_no_more_and_goes_on_when_released(
    nursery: Children, client: Client
) -> None:
    redis = client.queue.redis
    signals = Signals(redis)
    drain = Drain(redis, signals)
    worker = nursery.worker()
    first = await client.submit("NAP", payload={"seconds": 1.0})

    async def busy() -> bool:
        beacon = (await signals.beacons([POD]))[POD]
        return beacon is not None and beacon.busy == 1

    await eventually_async(busy)
    await drain.hold([POD], ttl_s=60)

    async def obeys() -> bool:
        return await drain.acknowledged([POD], empty=()) == [POD]

    await eventually_async(obeys)
    assert (await client.until(first)).status == "COMPLETED"
    second = await client.submit("ECHO")
    worker.wait_for("worker.drains")
    assert await drain.acknowledged([POD], empty=()) == [POD]
    assert (await client.get(second)).status == "PENDING"
    await drain.lower([POD])
    assert (await client.until(second)).attempt == 1
    assert worker.stop() == 0
    assert not await redis.exists(BEACON_KEY + POD)


async def test_a_worker_that_starts_under_a_flag_takes_nothing(nursery: Children, client: Client) -> None:
    drain = Drain(client.queue.redis, Signals(client.queue.redis))
    await drain.hold([POD], ttl_s=60)
    task_id = await client.submit("ECHO")
    nursery.worker().wait_for("worker.drains")
    assert (await client.get(task_id)).status == "PENDING"
    await drain.lower([POD])
    await client.until(task_id)
