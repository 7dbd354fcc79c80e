"""huey with Redis and eight threads."""

import os

from huey import RedisHuey

huey = RedisHuey("bench", url=os.environ["BENCH_REDIS_URL"], results=False)


@huey.task()
def noop() -> None:
    """Do nothing."""


def enqueue(count: int) -> None:
    """Send `count` tasks."""
    for _ in range(count):
        noop()
