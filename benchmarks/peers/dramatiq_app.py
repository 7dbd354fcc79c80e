"""Dramatiq with Redis, its default layout (a process for each core, eight threads in each)."""

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker

broker = RedisBroker(url=os.environ["BENCH_REDIS_URL"])
dramatiq.set_broker(broker)


@dramatiq.actor
def noop() -> None:
    """Do nothing."""


def enqueue(count: int) -> None:
    """Send `count` tasks."""
    for _ in range(count):
        noop.send()
