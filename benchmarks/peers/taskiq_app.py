"""taskiq with Redis lists, its default of two worker processes."""

import asyncio
import os

from taskiq_redis import ListQueueBroker

broker = ListQueueBroker(url=os.environ["BENCH_REDIS_URL"])


@broker.task
async def noop() -> None:
    """Do nothing."""


def enqueue(count: int) -> None:
    """Send `count` tasks."""

    async def send() -> None:
        await broker.startup()
        for _ in range(count):
            await noop.kiq()
        await broker.shutdown()

    asyncio.run(send())
