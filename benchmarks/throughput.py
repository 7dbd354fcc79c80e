"""How many tasks a second a worker finishes: TaskFlow's, stock RQ's with the same SQL, and the peers', in one run.

The tasks do nothing. Each is enqueued in full first; the clock runs from the first task taken to the last one done.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
from redis import Redis

from servers import Servers
from taskflow_core.queue import DeliveryQueue, connect_redis

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
PLUGIN = HERE.parent / "tests" / "plugin"
DEADLINE_S = 120
POLL_S = 0.01

FILL = """
INSERT INTO tasks (id, owner_id, type, lane, payload, created_at, enqueued_at)
SELECT gen_random_uuid(), '00000000-0000-0000-0000-000000000001', 'ECHO', 'default', '{}', now(), clock_timestamp()
FROM generate_series(1, %s) RETURNING id, lane, enqueued_at
"""
EMPTY = "TRUNCATE tasks, task_events, task_attempts, task_logs CASCADE"


@dataclass(frozen=True)
class Contender:
    """One worker to measure: how it is fed, started, and how many of its tasks are left."""

    name: str
    tasks: int
    command: Sequence[str]
    enqueue: Callable[[Servers, int], None]
    left: Callable[[Servers], int]
    env: dict[str, str] = field(default_factory=dict)


def measure(contender: Contender, servers: Servers) -> float:
    """Return tasks a second of one run from empty stores."""
    clean(servers)
    contender.enqueue(servers, contender.tasks)
    with running(contender, servers):
        started = _wait(lambda: contender.left(servers) < contender.tasks)
        left = contender.left(servers)
        ended = _wait(lambda: contender.left(servers) == 0)
    return left / (ended - started)


def contenders(peers: Path) -> list[Contender]:
    """Return everything that is measured, ours first; `peers` is the bin folder of their environment."""
    return [
        *(ours(slots) for slots in (1, 16, 50)),
        _rq("RQ forking worker, same SQL", 200, "rq.worker.Worker"),
        _rq("RQ SimpleWorker, same SQL", 1500, "rq.worker.SimpleWorker"),
        *_peers(peers),
    ]


def _peers(peers: Path) -> list[Contender]:
    return [
        Contender(
            "Procrastinate, concurrency 10",
            2000,
            [str(peers / "procrastinate"), "--app", "procrastinate_app.app", "worker", "--concurrency", "10"],
            _peer("procrastinate_app", peers),
            _rows("SELECT count(*) FROM procrastinate_jobs WHERE status IN ('todo', 'doing')"),
        ),
        Contender(
            "Celery, prefork",
            10_000,
            [str(peers / "celery"), "-A", "celery_app", "worker", "--loglevel", "error"],
            _peer("celery_app", peers),
            _lists(["celery"], hashes=["unacked"]),
        ),
        Contender(
            "Dramatiq",
            10_000,
            [str(peers / "dramatiq"), "dramatiq_app"],
            _peer("dramatiq_app", peers),
            _lists(["dramatiq:default"]),
        ),
        Contender(
            "taskiq",
            20_000,
            [str(peers / "taskiq"), "worker", "taskiq_app:broker", "--log-level", "ERROR"],
            _peer("taskiq_app", peers),
            _lists(["taskiq"]),
        ),
        Contender(
            "huey, 8 threads",
            20_000,
            [str(peers / "huey_consumer"), "huey_app.huey", "-k", "thread", "-w", "8", "-q"],
            _peer("huey_app", peers),
            _lists(["huey.redis.bench"]),
        ),
    ]


def fill(servers: Servers, count: int) -> None:
    """Insert `count` waiting tasks and their deliveries."""
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        rows = connection.execute(FILL, [count]).fetchall()
        connection.execute("VACUUM ANALYZE tasks")

    async def deliver() -> None:
        client = connect_redis(servers.settings)
        queue = DeliveryQueue(client)
        for start in range(0, count, 1000):
            batch = [SimpleNamespace(id=row[0], lane=row[1], enqueued_at=row[2]) for row in rows[start : start + 1000]]
            await queue.deliver(batch)
        await client.aclose()

    asyncio.run(deliver())


def ours(slots: int) -> Contender:
    """Return TaskFlow's worker with that many slots."""
    env = {"TASKFLOW_SLOTS": str(slots), "PYTHONPATH": str(PLUGIN)}
    return Contender(
        f"TaskFlow, {slots} slot{'s' if slots > 1 else ''}",
        30_000 if slots > 1 else 3000,
        [sys.executable, "-m", "taskflow_worker"],
        fill,
        _rows("SELECT count(*) FROM tasks WHERE finished_at IS NULL"),
        env,
    )


def _rq(name: str, tasks: int, kind: str) -> Contender:
    # What the job needs is imported before the forks, as RQ's own guide to performance advises.
    preloaded = "import rq_app, rq.cli; rq.cli.main()"
    command = [sys.executable, "-c", preloaded, "worker", "bench", "-w", kind, "-S", "json", "--quiet"]

    def enqueue(servers: Servers, count: int) -> None:
        with psycopg.connect(servers.database_url, autocommit=True) as connection:
            connection.execute(FILL, [count])
            connection.execute("VACUUM ANALYZE tasks")
        _peer("rq_app", BIN)(servers, count)

    unfinished = _rows("SELECT count(*) FROM tasks WHERE finished_at IS NULL")
    return Contender(name, tasks, command, enqueue, unfinished, {"RQ_REDIS_URL": "{redis_url}"})


def _peer(module: str, programs: Path) -> Callable[[Servers, int], None]:
    def enqueue(servers: Servers, count: int) -> None:
        code = f"import {module}; {module}.enqueue({count})"
        subprocess.run([str(programs / "python"), "-c", code], env=_env(servers, {}), cwd=HERE / "peers", check=True)

    return enqueue


def _rows(query: Any) -> Callable[[Servers], int]:
    connections: dict[str, psycopg.Connection] = {}

    def left(servers: Servers) -> int:
        if servers.database_url not in connections:
            connections[servers.database_url] = psycopg.connect(servers.database_url, autocommit=True)
        row = connections[servers.database_url].execute(query).fetchone()
        return int(row[0]) if row else 0

    return left


def _lists(names: Sequence[str], hashes: Sequence[str] = ()) -> Callable[[Servers], int]:
    def left(servers: Servers) -> int:
        with Redis.from_url(servers.redis_url) as client:
            return sum(int(client.llen(name)) for name in names) + sum(int(client.hlen(name)) for name in hashes)

    return left


def _env(servers: Servers, extra: dict[str, str]) -> dict[str, str]:
    own = {"BENCH_REDIS_URL": servers.redis_url, "BENCH_DATABASE_URL": servers.database_url, **servers.env}
    path = os.pathsep.join([str(HERE / "peers"), str(PLUGIN)])
    filled = {name: value.replace("{redis_url}", servers.redis_url) for name, value in extra.items()}
    return {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "PYTHONPATH": path, **own, **filled}


@contextmanager
def running(contender: Contender, servers: Servers) -> Iterator[int]:
    """Run a contender's worker; yields its pid."""
    log = servers.folder / "worker.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            contender.command,
            env=_env(servers, contender.env),
            cwd=HERE / "peers",
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process.pid
    except TimeoutError:
        raise TimeoutError(f"{contender.name} did not finish:\n{log.read_text()[-2000:]}") from None
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def clean(servers: Servers) -> None:
    """Empty both stores."""
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        connection.execute(EMPTY)
        connection.execute("CHECKPOINT")
    with Redis.from_url(servers.redis_url) as client:
        client.flushall()


def _wait(check: Callable[[], bool]) -> float:
    deadline = time.monotonic() + DEADLINE_S
    while not check():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(POLL_S)
    return time.monotonic()
