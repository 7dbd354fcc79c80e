"""What a worker and Redis hold: resident memory over a long run, bytes for a waiting and for a finished task."""

import time
from pathlib import Path
from typing import NamedTuple

from redis import Redis

from servers import Servers
from throughput import Contender, clean, fill, ours, running

TASKS = 200_000
SLOTS = 16
DEADLINE_S = 300


class Memory(NamedTuple):
    """Mebibytes of a worker early and late in its run; bytes in Redis for a waiting task and for a finished one."""

    early_mib: float
    late_mib: float
    waiting_bytes: float
    finished_bytes: float


def measure(servers: Servers) -> Memory:
    """Run TASKS tasks through one worker."""
    worker = ours(SLOTS)
    with Redis.from_url(servers.redis_url) as client:
        clean(servers)
        empty = _used(client)
        fill(servers, TASKS)
        waiting = _used(client) - empty
        early, late = _watch(worker, servers)
        finished = _used(client) - empty
    return Memory(early, late, waiting / TASKS, max(0, finished) / TASKS)


def _watch(worker: Contender, servers: Servers) -> tuple[float, float]:
    early = 0.0
    deadline = time.monotonic() + DEADLINE_S
    with running(worker, servers) as pid:
        while (left := worker.left(servers)) > 0:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{left} tasks are left")
            if not early and left < TASKS * 0.9:
                early = resident_mib(pid)
            time.sleep(0.5)
        return early, resident_mib(pid)


def resident_mib(pid: int) -> float:
    """Return the mebibytes of a process that are in memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def _used(client: Redis) -> int:
    client.memory_purge()
    return int(client.info("memory")["used_memory"])
