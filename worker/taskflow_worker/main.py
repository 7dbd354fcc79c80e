"""The worker process: settings, connections, signals, the engine, and a clean end."""

import asyncio
import importlib.metadata
import os
import random
import signal
import socket
import sys
from uuid import uuid4

import psycopg
import redis
import uvloop
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy.ext.asyncio import AsyncEngine

from taskflow_core import garbage
from taskflow_core.database import create_engine, create_sessions
from taskflow_core.handlers import Registry
from taskflow_core.links import pause
from taskflow_core.logs import configure_logs, get_logger
from taskflow_core.measures import DISTRIBUTION
from taskflow_core.probes import Pulse, serve_probes
from taskflow_core.queue import connect_redis
from taskflow_core.settings import WorkerSettings, load_or_exit
from taskflow_worker.beacon import BeaconLight, DrainFlag
from taskflow_worker.engine import Engine
from taskflow_worker.inbox import Inbox
from taskflow_worker.keeper import Identity, Keeper
from taskflow_worker.metrics import WorkerMetrics
from taskflow_worker.rq_worker import TaskFlowWorker

BEAT_S = 5.0
PATIENCE = 6.0  # handlers' own statements and transactions may take six times as long as ours

log = get_logger(__name__)


class Process:
    """One worker: the RQ worker around the engine, and what both need."""

    def __init__(self, settings: WorkerSettings, registry: Registry) -> None:
        queues = settings.queues.split(",")
        boot = uuid4().hex[:12]
        hostname = socket.gethostname()
        self.settings = settings
        self.registry = registry
        self.identity = Identity(
            id=f"{hostname}-{os.getpid()}-{boot}",
            name=f"taskflow-{hostname}-{boot}",
            hostname=hostname,
            pid=os.getpid(),
            queues=queues,
            slots=settings.slots,
            version=importlib.metadata.version(DISTRIBUTION),
        )
        connection = redis.Redis.from_url(
            settings.redis_url.get_secret_value(),
            socket_timeout=settings.redis_timeout_s,
            socket_connect_timeout=settings.redis_timeout_s,
        )
        self.rq = TaskFlowWorker(queues, name=self.identity.name, connection=connection, loop=self._loop)
        self.pulse = Pulse(watch=30.0, fetch=60.0, keeper=60.0)
        self.metrics = WorkerMetrics(slots=settings.slots, types=registry.names())

    def _loop(self) -> bool:
        return uvloop.run(self._work())

    async def _work(self) -> bool:
        database = create_engine(self.settings, service="worker", pool_size=self.settings.slots + 2, patience=PATIENCE)
        client = connect_redis(self.settings)
        engine = self._engine(database, client)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, engine.stop)
        loop.add_signal_handler(signal.SIGINT, engine.interrupt_stop)
        keeper = Keeper(
            self.settings,
            self.identity,
            runs=lambda: list(engine.runs.values()),
            draining=engine.stopping.is_set,
            loop=loop,
            pulse=self.pulse,
        )
        signs = [asyncio.create_task(self._beat(engine)), asyncio.create_task(engine.shine())]
        try:
            if not await self._register(keeper, engine):
                return True
            keeper.start()
            garbage.settle()
            self.pulse.started()
            log.info(
                "worker.started", worker_id=self.identity.id, queues=self.identity.queues, slots=engine.settings.slots
            )
            clean = await engine.run()
            await asyncio.to_thread(keeper.stop)
            return clean
        finally:
            await engine.light.put_out()
            for sign in signs:
                sign.cancel()
            await asyncio.gather(*signs, return_exceptions=True)
            await asyncio.to_thread(self._die)
            await client.aclose()
            await database.dispose()

    def _engine(self, database: AsyncEngine, client: Redis) -> Engine:
        flag = DrainFlag(client, self.identity.hostname)
        light = BeaconLight(client, self.identity, flag)
        engine = Engine(
            self.settings,
            self.registry,
            worker_id=self.identity.id,
            inbox=Inbox(client, self.identity.queues, self.metrics, flag=flag, drained=light.changed),
            sessions=create_sessions(database),
            light=light,
            pulse=self.pulse,
            metrics=self.metrics,
        )
        self.metrics.watch(
            busy=lambda: engine.busy,
            draining=lambda: engine.stopping.is_set() or flag.raised,
            degraded=lambda: engine.inbox.degraded,
            pool=database,
        )
        return engine

    async def _register(self, keeper: Keeper, engine: Engine) -> bool:
        """Wait for PostgreSQL, for ever, with backoff; False when the worker was stopped meanwhile."""
        failures = 0
        while not engine.stopping.is_set():
            try:
                await asyncio.to_thread(keeper.register)
            except (psycopg.Error, OSError) as error:
                failures += 1
                log.warning("database.away", reason=str(error).strip())
                await pause(failures, stop=engine.stopping)
            else:
                return True
        return False

    async def _beat(self, engine: Engine) -> None:
        """Keep the worker registered in Redis; an outage there stops nothing."""
        told = 0
        while True:
            done = engine.finished
            try:
                engine.inbox.suspended = await asyncio.to_thread(
                    self.rq.beat, busy=engine.busy > 0, finished=done - told
                )
                told = done
                self.metrics.redis.answered(yes=True)
            except (RedisError, OSError) as error:
                self.metrics.redis.answered(yes=False)
                log.warning("heartbeat.failed", reason=str(error))
            await asyncio.sleep(BEAT_S * random.uniform(0.8, 1.0) if not engine.inbox.suspended else 1.0)  # noqa: S311 - jitter

    def _die(self) -> None:
        try:
            self.rq.register_death()
        except (RedisError, OSError) as error:
            log.warning("goodbye.failed", reason=str(error))


def main() -> None:
    """Run a worker until SIGTERM or SIGINT; status 0 when every task ended or was given back."""
    settings = load_or_exit(WorkerSettings)
    configure_logs(level=settings.log_level, style=settings.log_format, service="worker")
    process = Process(settings, Registry.load_or_exit())
    serve_probes(settings.probe_port, process.pulse, host=settings.probe_host)
    clean = process.rq.work()
    log.info("worker.stopped", clean=clean)
    if not clean:
        sys.stdout.flush()
        os._exit(0)  # a handler's thread would not end; its task is released, and only the process's end stops it
