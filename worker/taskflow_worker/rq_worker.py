"""The worker as RQ sees it: `rq info` lists it with its queues, `rq suspend` pauses it, KEDA and dashboards count it.

RQ's fork per job, its retries, results and registries are not used. What is overridden is pinned to RQ 3.0 and held
by a contract test.
"""

import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

from redis import Redis
from rq import Queue, Worker
from rq.suspension import is_suspended
from rq.worker import WorkerStatus

WORKER_TTL_S = 45


class TaskFlowWorker(Worker):
    """An `rq.Worker` whose loop is the engine's."""

    def __init__(self, queues: Sequence[str], *, name: str, connection: Redis, loop: Callable[[], bool]) -> None:
        super().__init__(
            [Queue(queue, connection=connection, serializer="json") for queue in queues],
            name=name,
            connection=connection,
            serializer="json",
            worker_ttl=WORKER_TTL_S,
            prepare_for_work=False,
        )
        self.hostname = socket.gethostname()
        self.pid = os.getpid()
        self._loop = loop

    def work(self, *_: Any, **__: Any) -> bool:
        """Run the engine until it is told to stop. Returns whether every handler ended."""
        return self._loop()

    def beat(self, *, busy: bool, finished: int) -> bool:
        """Say that the worker lives, registering it (again) where Redis does not know it; return if it is suspended.

        Raises:
            redis.exceptions.RedisError, OSError: Redis is away.
        """
        if not self.connection.exists(self.key):
            self.register_birth()
        self.set_state(WorkerStatus.BUSY if busy else WorkerStatus.IDLE)
        self.heartbeat(WORKER_TTL_S)
        if finished:
            self.connection.hincrby(self.key, "successful_job_count", finished)
        return bool(is_suspended(self.connection))
