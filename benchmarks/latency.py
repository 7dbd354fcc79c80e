"""How soon an idle system starts a task: from the API's 201 to the first line of the handler, and to COMPLETED."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import httpx2
import psycopg

from servers import Servers
from taskflow_cli.embedded.ports import free_port
from throughput import PLUGIN

TASKS = 500
GAP_S = 0.02
STARTING_S = 30


class Latency(NamedTuple):
    """Milliseconds: median and 99th percentile."""

    p50: float
    p99: float


def measure(servers: Servers) -> dict[str, Latency]:
    """Return the latencies of tasks sent one by one over one connection."""
    with ExitStack() as stack:
        port = free_port()
        api = {"TASKFLOW_JWT_SECRET": "x" * 48, "TASKFLOW_API_PORT": str(port), "TASKFLOW_BCRYPT_ROUNDS": "4"}
        for module, env in (("taskflow_api", api), ("taskflow_worker.scheduler", {}), ("taskflow_worker", {})):
            stack.enter_context(_process(module, {**servers.env, **env}))
        http = stack.enter_context(httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10))
        _log_in(http)
        answered = dict(_send(http) for _ in range(TASKS))
        return _read(servers, answered)


def _send(http: httpx2.Client) -> tuple[str, float]:
    time.sleep(GAP_S)
    answer = http.post("/api/v1/tasks", json={"type": "STAMP", "payload": {}})
    return answer.raise_for_status().json()["id"], time.time()


def _read(servers: Servers, answered: dict[str, float]) -> dict[str, Latency]:
    query = """
    SELECT id::text, (result->>'value')::float8, EXTRACT(EPOCH FROM finished_at)::float8 FROM tasks
    WHERE status = 'COMPLETED' AND id = ANY(%s::uuid[])
    """
    deadline = time.monotonic() + STARTING_S
    rows: list[tuple[Any, ...]] = []
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        while len(rows) < len(answered) and time.monotonic() < deadline:
            rows = connection.execute(query, [list(answered)]).fetchall()
    if len(rows) < len(answered):
        raise TimeoutError(f"{len(answered) - len(rows)} tasks did not complete")
    return {
        "201 to the handler's start": _percentiles([max(0.0, start - answered[key]) for key, start, _ in rows]),
        "201 to COMPLETED": _percentiles([max(0.0, end - answered[key]) for key, _, end in rows]),
    }


def _percentiles(seconds: Sequence[float]) -> Latency:
    cuts = statistics.quantiles(seconds, n=100)
    return Latency(statistics.median(seconds) * 1000, cuts[98] * 1000)


def _log_in(http: httpx2.Client) -> None:
    account = {"email": "bench@example.com", "password": "a long enough one"}
    deadline = time.monotonic() + STARTING_S
    while time.monotonic() < deadline:
        try:
            if http.get("/health/ready").status_code == 200:
                break
        except httpx2.TransportError:
            time.sleep(0.1)
    http.post("/api/v1/auth/register", json=account).raise_for_status()
    token = http.post("/api/v1/auth/login", json=account).raise_for_status().json()["access_token"]
    http.headers["Authorization"] = f"Bearer {token}"


@contextmanager
def _process(module: str, env: dict[str, str]) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, "-m", module],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(PLUGIN), **env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=40)
