"""A scenario's stage: real servers and processes, tasks in bulk, and the count at the end."""

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import Any
from uuid import UUID, uuid4

import httpx2
from psycopg import AsyncConnection
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from children import Child, Children, Client
from faults.figures import Figures
from faults.servers import Network, Servers
from taskflow_cli.embedded.ports import free_port
from taskflow_core.database import dumps, plain_url
from taskflow_core.identifiers import new_id
from taskflow_core.lanes import CROWD, lane_of, lanes_of
from taskflow_core.queue import QUEUE_KEY
from taskflow_core.recovery import EnqueuedTask
from taskflow_core.settings import Settings
from taskflow_worker.scheduler import EPOCH_KEY
from waiting import eventually_async

LEASE_S = 2.0
BRISK = {"sweep_interval_s": "0.3", "lease_sweep_interval_s": "0.3"}
DEADLINE_S = 90.0
PIECE = 1000

INSERT = """
INSERT INTO tasks (id, owner_id, type, lane, payload, max_attempts, created_at, run_at, enqueued_at)
SELECT id, %(owner)s, %(type)s, lane, payload::jsonb, %(max_attempts)s, clock_timestamp(),
  clock_timestamp() + make_interval(secs => %(delay_s)s), CASE WHEN %(delay_s)s <= 0 THEN clock_timestamp() END
FROM unnest(%(ids)s::uuid[], %(lanes)s::text[], %(payloads)s::text[]) AS t(id, lane, payload)
RETURNING id, lane, enqueued_at
"""
COUNT = """
SELECT count(*) FILTER (WHERE status = 'COMPLETED'), count(*) FILTER (WHERE status = 'FAILED'),
  count(*) FILTER (WHERE status = 'CANCELED'),
  count(*) FILTER (WHERE 1 < (SELECT count(*) FROM task_attempts a WHERE a.task_id = t.id AND outcome = 'completed'))
FROM tasks t WHERE id = ANY(%s::uuid[])
"""


@dataclass
class Api:
    """A running API process and a user of it."""

    child: Child
    http: httpx2.AsyncClient

    async def post(self, key: str | None = None) -> httpx2.Response:
        """Ask for an ECHO, under an Idempotency-Key if given."""
        headers = {} if key is None else {"Idempotency-Key": key}
        return await self.http.post("/api/v1/tasks", json={"type": "ECHO", "payload": {}}, headers=headers)


@dataclass
class Scene:
    """Everything that a scenario plays with."""

    settings: Settings
    servers: Servers
    nursery: Children
    client: Client
    engine: AsyncEngine
    record: Callable[[str, object], None]
    workers: list[Child] = field(default_factory=list)

    async def worker(self, through: Network | None = None, /, **settings: str) -> Child:
        """Start a worker with a short lease, through a stretch of network if given, and wait until it works."""
        return await _working(self.start_worker(through, **settings), "worker.started")

    def start_worker(self, through: Network | None = None, /, **settings: str) -> Child:
        """Start a worker and return at once."""
        chosen = {"lease_s": str(LEASE_S), **settings}
        if through is not None:
            chosen["database_url"] = address_through(plain_url(self.settings.database_url), through)
        worker = self.nursery.start("taskflow_worker", **chosen)
        self.workers.append(worker)
        return worker

    async def scheduler(self, **settings: str) -> Child:
        """Start a scheduler that looks often, and wait until it works."""
        child = self.nursery.start("taskflow_worker.scheduler", **{**BRISK, **settings})
        return await _working(child, "scheduler.started")

    def keep_alive(self, worker: Child) -> Child:
        """Return the worker, or another in its place if its process has ended: what a supervisor does."""
        return worker if worker.process.poll() is None else self.start_worker()

    @asynccontextmanager
    async def api(self, user: Api | None = None, /, **settings: str) -> AsyncIterator[Api]:
        """Start the API and a user of it: the one given, or a new one."""
        port = str(free_port())
        child = self.nursery.start("taskflow_api", api_port=port, bcrypt_rounds="4", **settings)
        url = f"http://127.0.0.1:{port}"
        async with httpx2.AsyncClient(base_url=url, timeout=60, trust_env=False) as http:
            await eventually_async(lambda: _answers(child, http), timeout=60)
            http.headers["Authorization"] = user.http.headers["Authorization"] if user else await _token(http)
            yield Api(child, http)

    async def submit(
        self,
        count: int,
        type_: str = "ECHO",
        payload: Callable[[int], dict[str, Any]] = lambda _: {},
        *,
        owner: UUID | None = None,
        max_attempts: int = 3,
        delay_s: float = 0.0,
        deliver: bool = True,
    ) -> list[UUID]:
        """Create tasks in bulk as `tasks.create` would one by one, and deliver those that are due; return the ids."""
        owner = owner or self.client.actor.user_id
        ids: list[UUID] = []
        for first in range(0, count, PIECE):
            numbers = range(first, min(first + PIECE, count))
            rows = await self.query(
                INSERT,
                owner=owner,
                type=type_,
                max_attempts=max_attempts,
                delay_s=delay_s,
                ids=[new_id() for _ in numbers],
                lanes=[lane_of("default", 0, crowded=number >= CROWD) for number in numbers],
                payloads=[dumps(payload(number)) for number in numbers],
            )
            ids += [row[0] for row in rows]
            if deliver:
                assert await self.client.queue.deliver(EnqueuedTask(*row) for row in rows)
        return ids

    async def deliver(self, times: int = 1) -> list[EnqueuedTask]:
        """Deliver all tasks as the table has them now, so often at once, and return what the deliveries are made of."""
        tasks = [EnqueuedTask(*row) for row in await self.query("SELECT id, lane, enqueued_at FROM tasks")]
        assert await self.client.queue.deliver(tasks * times)
        return tasks

    async def query(self, statement: str, *values: Any, **named: Any) -> list[tuple[Any, ...]]:
        """Run a statement on a connection of its own, so that no outage before matters."""
        async with await AsyncConnection.connect(plain_url(self.settings.database_url)) as connection:
            cursor = await connection.execute(statement.encode(), named or values or None)
            return await cursor.fetchall() if cursor.description else []

    async def count(self, condition: str, *values: Any) -> int:
        """Count tasks."""
        statement = f"SELECT count(*) FROM tasks WHERE {condition}"  # noqa: S608 - written in the tests
        return int((await self.query(statement, *values))[0][0])

    async def until(self, condition: str, *values: Any, count: int = 1, timeout: float = DEADLINE_S) -> None:  # noqa: ASYNC109 polls
        """Wait until so many tasks fulfil the condition."""

        async def enough() -> bool:
            return await self.count(condition, *values) >= count

        try:
            await eventually_async(enough, timeout)
        except AssertionError:
            states = await self.query("SELECT status, attempt, count(*) FROM tasks GROUP BY 1, 2 ORDER BY 1, 2")
            raise AssertionError(f"fewer than {count} tasks with {condition} after {timeout} s: {states}") from None

    async def until_final(self, ids: Sequence[UUID], timeout: float = DEADLINE_S) -> None:  # noqa: ASYNC109 polls
        """Wait until all of them have ended."""
        await self.until("id = ANY(%s::uuid[]) AND finished_at IS NOT NULL", list(ids), count=len(ids), timeout=timeout)

    async def outcomes(self, ids: Sequence[UUID]) -> set[tuple[str, ...]]:
        """Return the different histories of the tasks, each as the outcomes of its attempts in order."""
        rows = await self.query(
            "SELECT (SELECT array_agg(outcome ORDER BY fence) FROM task_attempts a WHERE a.task_id = t.id) "
            "FROM tasks t WHERE id = ANY(%s::uuid[])",
            list(ids),
        )
        return {tuple(row[0] or ()) for row in rows}

    async def waiting(self) -> int:
        """Count the deliveries in Redis."""
        async with Redis.from_url(self.servers.valkey.url) as redis:
            return sum([int(await redis.llen(QUEUE_KEY + lane)) for lane in lanes_of(["default"])])

    async def until_marked(self) -> None:
        """Wait until the scheduler has put its mark into Redis: from then on it does not take Redis for emptied."""

        async def marked() -> bool:
            async with Redis.from_url(self.servers.valkey.url) as redis:
                return bool(await redis.exists(EPOCH_KEY))

        await eventually_async(marked)

    def logged(self, event: str) -> int:
        """Count how often all workers together logged the event."""
        return sum(worker.log.read_text().count(f'"event":"{event}"') for worker in self.workers)

    async def report(
        self, scenario: str, ids: Sequence[UUID], *, recovery_s: float | None = None, note: str = ""
    ) -> Figures:
        """Count what became of the tasks, put the line into the table, and insist that none is lost or doubled."""
        (row,) = await self.query(COUNT, list(ids))
        completed, failed, canceled, doubled = row
        lost = len(ids) - completed - failed - canceled
        figures = Figures(scenario, len(ids), completed, failed, canceled, lost, doubled, recovery_s, note)
        self.record("figures", asdict(figures))
        assert (figures.lost, figures.doubled) == (0, 0), figures
        return figures


class Stopwatch:
    """Seconds since a fault, or since its end."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def read(self) -> float:
        """Return the seconds so far."""
        return time.monotonic() - self._began


def address_through(url: str, network: Network) -> str:
    """Return the address of the same server at the other end of the network."""
    head, _, rest = url.rpartition("@")
    return f"{head}@127.0.0.1:{network.port}/{rest.partition('/')[2]}"


def port_of(url: str) -> int:
    """Return the port of a server's address."""
    return int(url.rpartition("@")[2].partition("/")[0].rpartition(":")[2])


async def _working(child: Child, event: str) -> Child:
    """Wait for the event without holding the loop up: a network of the test lives in it."""

    async def works() -> bool:
        assert child.process.poll() is None, child.log.read_text()
        return child.said(event)

    await eventually_async(works, timeout=DEADLINE_S)
    return child


async def _token(http: httpx2.AsyncClient) -> str:
    account = {"email": f"{uuid4().hex}@example.com", "password": "correct horse battery"}
    assert (await http.post("/api/v1/auth/register", json=account)).status_code == 201
    return f"Bearer {(await http.post('/api/v1/auth/login', json=account)).json()['access_token']}"


async def _answers(child: Child, http: httpx2.AsyncClient) -> bool:
    assert child.process.poll() is None, child.log.read_text()
    try:
        return (await http.get("/health/live", timeout=5)).status_code == 200
    except httpx2.TransportError:
        return False
