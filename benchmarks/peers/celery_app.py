"""Celery with Redis, its default pool (a process for each core), no results."""

import os

from celery import Celery

app = Celery("bench", broker=os.environ["BENCH_REDIS_URL"])
app.conf.update(task_ignore_result=True, worker_hijack_root_logger=False, broker_connection_retry_on_startup=True)


@app.task
def noop() -> None:
    """Do nothing."""


def enqueue(count: int) -> None:
    """Send `count` tasks over one connection."""
    with app.connection_for_write() as connection, connection.Producer() as producer:
        for _ in range(count):
            noop.apply_async(producer=producer)
