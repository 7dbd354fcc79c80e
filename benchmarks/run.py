"""`make bench` and `make bench-api`: write RESULTS.md and API.md: minimum, median, maximum, the ratio to each peer."""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import psycopg
from redis import Redis

import api
import growth
import latency
import memory
import streams
import throughput
from servers import Servers, servers

RESULTS = Path(__file__).parent / "RESULTS.md"
API = Path(__file__).parent / "API.md"
OURS = "TaskFlow, 50 slots"
PACKAGES = ("rq", "psycopg", "sqlalchemy", "redis", "uvloop", "structlog")
PEERS = ("procrastinate", "celery", "dramatiq", "taskiq", "huey")


def main() -> None:
    """Run what is asked for (default: all) and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each contender (default 3)")
    parser.add_argument("--rows", type=int, default=10_000_000, help="size of the big table (default 10 million)")
    parser.add_argument(
        "--only", choices=["api", "streams", "throughput", "latency", "memory", "growth"], help="one part, printed only"
    )
    parser.add_argument("--api", action="store_true", help="the API instead of the engine; writes API.md")
    parser.add_argument("--peers", type=Path, default=Path(".venv-bench/bin"), help="programs of the peers")
    asked = parser.parse_args()
    parts = {
        "api": lambda running: api.report(running, asked.rounds),
        "streams": streams.report,
        "throughput": lambda running: _throughput(running, asked.rounds, asked.peers.resolve()),
        "latency": _latency,
        "memory": _memory,
        "growth": lambda running: _growth(running, asked.rows),
    }
    chosen = [asked.only] if asked.only else [name for name in parts if (name in {"api", "streams"}) == asked.api]
    target = API if asked.api else RESULTS
    lines = []
    with servers() as running:
        lines += _machine(running, asked.peers)
        for name in chosen:
            started = time.monotonic()
            lines += ["", *_shown(parts[name](running))]
            print(f"[{name} took {time.monotonic() - started:.0f} s]", flush=True)
    if not asked.only:
        target.write_text("\n".join(lines) + "\n")
        print(f"wrote {target}")


def _throughput(running: Servers, rounds: int, peers: Path) -> Iterator[str]:
    yield "## Throughput: tasks a second that do nothing, from the first taken to the last done"
    yield ""
    yield "TaskFlow claims, keeps history and events, and completes each task in PostgreSQL, every commit flushed."
    yield "RQ's workers do the same SQL a statement at a time; Procrastinate uses the same PostgreSQL; the others have"
    yield "no database at all."
    yield ""
    yield f"| worker | tasks | min | median | max | {OURS} is faster by |"
    yield "|---|---|---|---|---|---|"
    rates: dict[str, float] = {}
    for contender in throughput.contenders(peers):
        found = sorted(throughput.measure(contender, running) for _ in range(rounds))
        rates[contender.name] = statistics.median(found)
        ratio = f"{rates[OURS] / rates[contender.name]:.1f} x" if OURS in rates else ""
        cells = [
            contender.name,
            str(contender.tasks),
            *(f"{rate:.0f}" for rate in (found[0], rates[contender.name], found[-1])),
        ]
        yield f"| {' | '.join(cells)} | {ratio} |"


def _latency(running: Servers) -> Iterator[str]:
    yield f"## Latency of an idle system, milliseconds, over {latency.TASKS} tasks sent one by one"
    yield ""
    yield "| | p50 | p99 |"
    yield "|---|---|---|"
    for name, found in latency.measure(running).items():
        yield f"| {name} | {found.p50:.1f} | {found.p99:.1f} |"


def _memory(running: Servers) -> Iterator[str]:
    found = memory.measure(running)
    yield f"## Memory, over a run of {memory.TASKS} tasks in {memory.SLOTS} slots"
    yield ""
    yield "| | |"
    yield "|---|---|"
    yield f"| worker, a tenth into the run | {found.early_mib:.0f} MiB |"
    yield f"| worker, at its end | {found.late_mib:.0f} MiB |"
    yield f"| Redis, for a waiting task | {found.waiting_bytes:.0f} bytes |"
    yield f"| Redis, for a finished task | {found.finished_bytes:.1f} bytes |"


def _growth(running: Servers, rows: int) -> Iterator[str]:
    small, big = growth.measure(running, (10_000, rows))
    yield "## Growth: median milliseconds, in batches of 50, pages of 20"
    yield ""
    yield f"| statement | {small.rows:,} rows | {big.rows:,} rows | ratio |"
    yield "|---|---|---|---|"
    for name in ("claim", "complete", "first_page", "deep_page"):
        before, after = getattr(small, name), getattr(big, name)
        yield f"| {name.replace('_', ' ')} | {before:.2f} | {after:.2f} | {after / before:.2f} |"
    yield ""
    yield f"Updates of claims that were heap-only: {small.claims_heap_only:.0%} and {big.claims_heap_only:.0%}."


def _machine(running: Servers, peers: Path) -> list[str]:
    with psycopg.connect(running.database_url) as connection, Redis.from_url(running.redis_url) as client:
        database = connection.info.server_version // 10_000
        store = client.info("server")
    libraries = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    code = f"import importlib.metadata as m; print(', '.join(f'{{n}} {{m.version(n)}}' for n in {PEERS}))"
    others = subprocess.run([peers / "python", "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    return [
        "# Results",
        "",
        "Written by `make bench` or `make bench-api`. Clients, workers, PostgreSQL and Valkey shared the cores of one",
        "machine: compare the ratios, not the figures, with another machine. A Python that was compiled without",
        "optimisations, as pyenv does unless told otherwise, is a third slower than a distribution's.",
        "",
        f"{os.cpu_count()} cores ({_processor()}), Python {platform.python_version()} "
        f"({platform.python_compiler()}), PostgreSQL {database}, "
        f"{store.get('server_name', 'redis')} {store.get('valkey_version', store['redis_version'])}.",
        "",
        f"{libraries}; peers: {others}.",
    ]


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _shown(lines: Iterator[str]) -> Sequence[str]:
    shown = []
    for line in lines:
        print(line, flush=True)
        shown.append(line)
    return shown


if __name__ == "__main__":
    sys.exit(main())
