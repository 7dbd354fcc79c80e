"""`make soak`: a steady load for half an hour; watches memory, dead rows, table size, and the wait for a slot.

In the middle third another session sits idle in a transaction, so that no vacuum can remove what died since: it shows
what a forgotten transaction costs while it lasts, and that the platform is its old self afterwards.
"""

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
from psycopg import AsyncConnection
from redis import Redis

from memory import SLOTS, resident_mib
from servers import Servers, servers
from taskflow_core.queue import DeliveryQueue, connect_redis
from throughput import FILL, ours, running

RESULTS = Path(__file__).parent / "SOAK.md"
SAMPLES = 15
FEED_S = 0.1

STATE = """
SELECT n_dead_tup, pg_total_relation_size('tasks') / 1048576.0,
  (SELECT count(*) FROM tasks WHERE finished_at IS NOT NULL),
  (SELECT coalesce(1000 * extract(epoch FROM percentile_cont(0.99) WITHIN GROUP (ORDER BY started_at - enqueued_at)), 0)
     FROM (SELECT started_at, enqueued_at FROM tasks WHERE started_at > now() - interval '20 s') AS recent)
FROM pg_stat_user_tables WHERE relname = 'tasks'
"""


@dataclass(frozen=True)
class Sample:
    """How everything stands: minutes, tasks finished, MiB of the processes, KiB of Redis, rows, MiB, milliseconds."""

    minute: float
    finished: int
    worker_mib: float
    scheduler_mib: float
    redis_kib: float
    dead_rows: int
    table_mib: float
    wait_p99_ms: float
    transaction: str


def main() -> None:
    """Run the soak and write SOAK.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rate", type=int, default=300, help="tasks a second (default 300)")
    asked = parser.parse_args()
    with (
        servers() as stores,
        running(ours(SLOTS), stores) as worker,
        _scheduler(stores) as scheduler,
    ):
        samples = asyncio.run(_soak(stores, asked.minutes * 60, asked.rate, (worker, scheduler)))
    lines = [*_heading(asked.minutes, asked.rate), *(_row(sample) for sample in samples)]
    RESULTS.write_text("\n".join(lines) + "\n")
    print(f"wrote {RESULTS}")


@contextmanager
def _scheduler(servers: Servers) -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-m", "taskflow_worker.scheduler"], env=servers.env)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(timeout=30)


async def _soak(servers: Servers, seconds: float, rate: int, pids: tuple[int, int]) -> list[Sample]:
    feeding = asyncio.create_task(_feed(servers, seconds, rate))
    samples: list[Sample] = []
    started = time.monotonic()
    sleeper: psycopg.Connection[Any] | None = None
    for number in range(1, SAMPLES + 1):
        await asyncio.sleep(max(0.0, started + seconds * number / SAMPLES - time.monotonic()))
        samples.append(await asyncio.to_thread(_sample, servers, pids, started, sleeper))
        print(_row(samples[-1]), flush=True)
        if number == SAMPLES // 3:
            sleeper = psycopg.connect(servers.database_url)
            sleeper.execute("SELECT count(*) FROM tasks")
            sleeper.execute("SELECT pg_current_xact_id()")  # holds back the vacuum's horizon until it ends
        elif number == 2 * SAMPLES // 3 and sleeper:
            sleeper.close()
            sleeper = None
    await feeding
    return samples


async def _feed(servers: Servers, seconds: float, rate: int) -> None:
    """Insert and deliver `rate` tasks a second in small pieces; what a slow moment holds up comes in the next one."""
    client = connect_redis(servers.settings)
    queue = DeliveryQueue(client)
    sent, started = 0, time.monotonic()
    async with await AsyncConnection.connect(servers.database_url, autocommit=True) as connection:
        while (elapsed := time.monotonic() - started) < seconds:
            due = int(elapsed * rate) - sent
            if due > 0:
                rows = await (await connection.execute(FILL, [due])).fetchall()
                await queue.deliver(SimpleNamespace(id=row[0], lane=row[1], enqueued_at=row[2]) for row in rows)
                sent += due
            await asyncio.sleep(FEED_S)
    await client.aclose()


def _sample(servers: Servers, pids: tuple[int, int], started: float, sleeper: object) -> Sample:
    with psycopg.connect(servers.database_url) as connection, Redis.from_url(servers.redis_url) as client:
        row = connection.execute(STATE).fetchone()
        assert row is not None  # noqa: S101 - the table is there
        return Sample(
            minute=(time.monotonic() - started) / 60,
            finished=row[2],
            worker_mib=resident_mib(pids[0]),
            scheduler_mib=resident_mib(pids[1]),
            redis_kib=client.info("memory")["used_memory"] / 1024,
            dead_rows=row[0],
            table_mib=float(row[1]),
            wait_p99_ms=float(row[3]),
            transaction="idle, open" if sleeper else "",
        )


def _heading(minutes: float, rate: int) -> list[str]:
    return [
        "# Soak",
        "",
        f"Written by `make soak`: {rate} tasks a second for {minutes:g} minutes, one worker with {SLOTS} slots, one",
        "scheduler, fsync on, everything on one machine. The rows marked so were measured while another session sat",
        "idle in an open transaction. p99: from enqueued to claimed, over the last 20 s before each measurement.",
        "",
        "| minute | finished | worker MiB | scheduler MiB | Redis KiB | dead rows | table MiB | p99 ms | transaction |",
        "|---|---|---|---|---|---|---|---|---|",
    ]


def _row(sample: Sample) -> str:
    return (
        "| "
        + " | ".join(f"{value:.1f}" if isinstance(value, float) else f"{value}" for value in astuple(sample))
        + " |"
    )


if __name__ == "__main__":
    main()
