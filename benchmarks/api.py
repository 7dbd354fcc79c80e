"""The API beside a Node service of the usual kind and a synchronous FastAPI endpoint: requests a second, in one run.

Everything runs on one machine: each contender is one process, the client another, PostgreSQL and Valkey are shared.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import jwt
import psycopg

from client import WARM_UP_S
from servers import Servers
from taskflow_cli.embedded.ports import free_port
from throughput import PLUGIN, clean

HERE = Path(__file__).parent
ORIGIN = HERE / "peers" / "origin"
SECONDS = 2.0
STARTING_S = 60
ROWS = 1_000_000
DEEP = 20_000  # page 1,000 of 20
BATCH = 1000
LOGINS = 4
SECRET = "x" * 48
ACCOUNT = {"email": "bench@example.com", "password": "a long enough one"}
SYNC, OURS = "FastAPI, sync SQLModel session", "TaskFlow"
STORES = {"prisma": "Node origin (Express, Prisma, BullMQ)", "pg": "Node, pg without ORM (Express, pg, BullMQ)"}

FILL_OURS = """
INSERT INTO tasks (id, owner_id, type, lane, status, payload, result, attempt, fence, created_at, finished_at)
SELECT (lpad(to_hex(1700000000000 + n), 12, '0') || '7' || substr(md5(n::text), 1, 3) || '8'
    || substr(md5(n::text), 4, 15))::uuid, %(owner)s, 'ECHO', 'default', 'COMPLETED', '{"value": 1}', '{"value": 1}',
  1, 1, to_timestamp((1700000000000 + n) / 1000.0), now() FROM generate_series(1, %(rows)s::bigint) AS n
"""
FILL_ORIGIN = """
INSERT INTO origin_tasks (owner_id, type, title, status, priority, payload, created_at)
SELECT %(owner)s, 'EMAIL', '', 'COMPLETED', 0, '{"value": 1}', to_timestamp((1700000000000 + n) / 1000.0)
FROM generate_series(1, %(rows)s::bigint) AS n
"""
BUSY = """
SELECT pid FROM pg_stat_activity WHERE state = 'active' AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


@dataclass
class Contender:
    """A running server; `base` is what its paths begin with."""

    name: str
    port: int
    pid: int
    token: str
    base: str = ""
    type: str = "EMAIL"

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> list[Any]:
        """Return a request as the client takes it."""
        named = {"Authorization": f"Bearer {self.token}", **headers}
        return [method, self.base + path, named, "" if body is None else json.dumps(body)]

    def new_task(self, **fields: str) -> dict[str, Any]:
        """Return the body that makes a task."""
        return {"type": self.type, "title": "Hello", "payload": {"value": 1}, **fields}


@dataclass(frozen=True)
class Run:
    """Requests answered a second, the latency in milliseconds, and the server's own processor time for each."""

    rate: float
    p99: float
    cpu_us: float


def report(servers: Servers, rounds: int) -> Iterator[str]:
    """Yield the section of the results."""
    clean(servers)
    with ExitStack() as stack:
        ours = stack.enter_context(_ours(servers))
        origins = []
        if node := shutil.which("node"):
            _install()
            origins = [stack.enter_context(_origin(servers, node, store)) for store in STORES]
        sync = stack.enter_context(_sync(servers))
        yield "## API: requests a second, each contender one process"
        yield ""
        yield "The Node origin has an ORM, as such services do: Prisma 7 as it comes, its engine in WebAssembly. The"
        yield "row without ORM is the same service with SQL by hand. Ratios are to the contender of the row. TaskFlow"
        yield "has all on: tokens, validation, quota, request log, metrics; with a key: Idempotency-Key and dedup_key."
        yield "" if node else "**Node is not installed: both Node rows were left out.**"
        yield from _table("create", _creates([ours, *origins, sync], rounds))
        yield from _table("read", _reads(servers, ours, origins, rounds))
        yield from _batches(ours, rounds)
        yield from _beside_logins(ours)


def _creates(contenders: Sequence[Contender], rounds: int) -> dict[str, list[Run]]:
    found: dict[str, list[Run]] = {}
    for connections in (1, 16, 64):
        for _ in range(rounds):
            for contender in contenders:
                plan = [contender.request("POST", "/tasks", contender.new_task())]
                _add(found, f"create, {connections} connections: {contender.name}", contender, plan, connections)
            ours = contenders[0]
            keyed = ours.request("POST", "/tasks", ours.new_task(dedup_key="d{n}"), **{"Idempotency-Key": "k{n}"})
            _add(found, f"create, {connections} connections: {ours.name}, with a key", ours, [keyed], connections)
    return found


def _reads(servers: Servers, ours: Contender, origins: Sequence[Contender], rounds: int) -> dict[str, list[Run]]:
    found: dict[str, list[Run]] = {}
    _fill(servers, FILL_OURS, ours, "tasks")
    plans = {"get": _gets(ours), "first page": [ours.request("GET", "/tasks")], "page 1,000": [_deep(ours)]}
    measured = [(ours, plans)]
    if origins:  # they share the table and the user
        _fill(servers, FILL_ORIGIN, origins[0], "origin_tasks")
    for origin in origins:
        deep = origin.request("GET", f"/tasks?page={DEEP // 20}")
        measured.append(
            (origin, {"get": _gets(origin), "first page": [origin.request("GET", "/tasks")], "page 1,000": [deep]})
        )
    for _ in range(rounds):
        for contender, named in measured:
            for name, plan in named.items():
                _wait_until_idle(servers)
                _add(found, f"{name}, 16 connections: {contender.name}", contender, plan, 16)
    return found


def _gets(contender: Contender) -> list[list[Any]]:
    with _http(contender) as http:
        ids = [http.post(f"{contender.base}/tasks", json=contender.new_task()).json()["id"] for _ in range(50)]
    return [contender.request("GET", f"/tasks/{task_id}") for task_id in ids]


def _deep(ours: Contender) -> list[Any]:
    """Walk to where page 1,000 begins; return the request for it."""
    cursor = ""
    with _http(ours) as http:
        for _ in range(DEEP // 100):
            query = {"limit": "100"} | ({"cursor": cursor} if cursor else {})
            cursor = http.get(f"{ours.base}/tasks", params=query).raise_for_status().json()["next_cursor"]
    return ours.request("GET", f"/tasks?cursor={cursor}")


def _batches(ours: Contender, rounds: int) -> Iterator[str]:
    plan = [ours.request("POST", "/tasks:batch", {"items": [ours.new_task()] * BATCH})]
    rates = sorted(_drive(ours, plan, 2).rate * BATCH for _ in range(rounds))
    yield f"Batches of {BATCH:,} over 2 connections: {' / '.join(f'{rate:,.0f}' for rate in rates)} tasks a second."
    yield ""


def _beside_logins(ours: Contender) -> Iterator[str]:
    plan = _gets(ours)
    alone = _drive(ours, plan, 8)
    login = ["POST", f"{ours.base}/auth/login", {}, json.dumps(ACCOUNT)]
    with _client(ours, [login], LOGINS, SECONDS + 1):
        beside = _drive(ours, plan, 8)
    yield f"Reading over 8 connections while {LOGINS} logins are always in flight: p99 {beside.p99:.1f} ms, alone "
    yield f"{alone.p99:.1f} ms."


def _table(what: str, found: dict[str, list[Run]]) -> Iterator[str]:
    yield f"| {what} | min | median | max | p99, ms | CPU, us each | TaskFlow is faster by |"
    yield "|---|---|---|---|---|---|---|"
    medians = {name: statistics.median(run.rate for run in runs) for name, runs in found.items()}
    for name, runs in found.items():
        rates = sorted(run.rate for run in runs)
        ours = medians[f"{name.partition(': ')[0]}: {OURS}"]
        ratio = "" if OURS in name else f"{ours / medians[name]:.1f} x" if medians[name] else "no answer"
        p99 = statistics.median(run.p99 for run in runs)
        cpu_us = statistics.median(run.cpu_us for run in runs)
        cells = [name, *(f"{rate:,.0f}" for rate in (rates[0], medians[name], rates[-1])), f"{p99:.1f}"]
        yield f"| {' | '.join(cells)} | {cpu_us:,.0f} | {ratio} |"
    yield ""


def _add(found: dict[str, list[Run]], name: str, contender: Contender, plan: list[Any], connections: int) -> None:
    found.setdefault(name, []).append(_drive(contender, plan, connections))


def _drive(contender: Contender, plan: list[Any], connections: int) -> Run:
    before = _cpu_s(contender.pid)
    with _client(contender, plan, connections, SECONDS) as client:
        answer = json.loads(client.communicate(timeout=STARTING_S)[0])
    wrong = {status: times for status, times in answer["statuses"].items() if not status.startswith("2")}
    if wrong:
        raise RuntimeError(f"{contender.name} answered {wrong} to {plan[0][:2]}")
    served = sum(answer["statuses"].values()) * (SECONDS + WARM_UP_S) / SECONDS
    return Run(answer["rate"], answer["p99"], (_cpu_s(contender.pid) - before) / max(1, served) * 1e6)


@contextmanager
def _client(
    contender: Contender, plan: list[Any], connections: int, seconds: float
) -> Iterator["subprocess.Popen[str]"]:
    asked = {
        "host": "127.0.0.1",
        "port": contender.port,
        "connections": connections,
        "seconds": seconds,
        "requests": plan,
    }
    client = subprocess.Popen(
        [sys.executable, HERE / "client.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        if client.stdin is not None:
            json.dump(asked, client.stdin)
            client.stdin.close()
            client.stdin = None
        yield client
    finally:
        client.kill()
        client.wait()


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _fill(servers: Servers, statement: str, contender: Contender, table: str) -> None:
    """Give the contender's user ROWS finished tasks, and nothing else."""
    owner = jwt.decode(contender.token, options={"verify_signature": False})["sub"]
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        connection.execute(f"TRUNCATE {table} CASCADE")
        connection.execute(statement, {"owner": UUID(owner), "rows": ROWS})
        connection.execute(f"VACUUM ANALYZE {table}")
        connection.execute("CHECKPOINT")


def _wait_until_idle(servers: Servers) -> None:
    """Wait for the lists that clients of the drive before no longer do: their server still makes them."""
    deadline = time.monotonic() + STARTING_S
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        while connection.execute(BUSY).fetchone():
            if time.monotonic() > deadline:
                raise RuntimeError("the database is still busy with what the drive before asked for")
            time.sleep(0.1)


def _install() -> None:
    if not (ORIGIN / "node_modules" / ".prisma").is_dir():
        for command in (["npm", "ci"], ["npm", "run", "generate"]):
            subprocess.run(command, cwd=ORIGIN, check=True, timeout=600)


@contextmanager
def _ours(servers: Servers) -> Iterator[Contender]:
    port = free_port()
    env = servers.env | {
        "TASKFLOW_JWT_SECRET": SECRET,
        "TASKFLOW_API_PORT": str(port),
        "TASKFLOW_LOG_LEVEL": "info",
        "TASKFLOW_MAX_PENDING_TASKS": "1000000000",
        "TASKFLOW_ACCESS_TOKEN_TTL_S": "86400",
    }
    command = [sys.executable, "-m", "taskflow_api"]
    with _process(servers, command, env, port, "/health/ready") as pid:
        ours = Contender(OURS, port, pid, "", "/api/v1", "ECHO")
        with _http(ours) as http:
            http.post("/api/v1/auth/register", json=ACCOUNT).raise_for_status()
            ours.token = http.post("/api/v1/auth/login", json=ACCOUNT).raise_for_status().json()["access_token"]
        yield ours


@contextmanager
def _origin(servers: Servers, node: str, store: str) -> Iterator[Contender]:
    port = free_port()
    env = _peer_env(servers, port) | {"ORIGIN_STORE": store}
    with _process(servers, [node, str(ORIGIN / "server.js")], env, port, "/health") as pid:
        yield Contender(STORES[store], port, pid, _token())


@contextmanager
def _sync(servers: Servers) -> Iterator[Contender]:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--port", str(port), "--no-access-log", "sync_app:app"]
    with _process(servers, command, _peer_env(servers, port), port, "/health") as pid:
        yield Contender(SYNC, port, pid, _token())


def _peer_env(servers: Servers, port: int) -> dict[str, str]:
    return {
        "BENCH_DATABASE_URL": servers.database_url,
        "BENCH_REDIS_URL": servers.redis_url,
        "ORIGIN_SECRET": SECRET,
        "ORIGIN_PORT": str(port),
        "NODE_ENV": "production",
    }


def _token() -> str:
    return jwt.encode({"sub": str(UUID(int=7)), "exp": int(time.time()) + 86_400}, SECRET, algorithm="HS256")


@contextmanager
def _process(servers: Servers, command: Sequence[str], env: dict[str, str], port: int, health: str) -> Iterator[int]:
    path = os.pathsep.join([str(PLUGIN), str(HERE / "peers")])
    with (servers.folder / f"api-{port}.log").open("wb") as log:
        process = subprocess.Popen(
            command, env={"PATH": os.environ["PATH"], "PYTHONPATH": path, **env}, stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + STARTING_S
        while not _answers(port, health):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((servers.folder / f"api-{port}.log").read_text()[-2000:])
            time.sleep(0.1)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(port: int, health: str) -> bool:
    try:
        return httpx2.get(f"http://127.0.0.1:{port}{health}", trust_env=False).status_code == 200
    except httpx2.TransportError:
        return False


def _http(contender: Contender) -> httpx2.Client:
    headers = {"Authorization": f"Bearer {contender.token}"} if contender.token else {}
    return httpx2.Client(
        base_url=f"http://127.0.0.1:{contender.port}", headers=headers, trust_env=False, timeout=STARTING_S
    )
