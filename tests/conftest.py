"""Fixtures: one real PostgreSQL and one real Valkey a session, a fresh database and a flushed Valkey a test."""

import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import hypothesis
import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr
from redis import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from children import Children, Client, children
from taskflow_cli.embedded import postgres, valkey
from taskflow_cli.embedded.ports import free_port
from taskflow_cli.embedded.process import Launch, command_line
from taskflow_core import schema
from taskflow_core.database import Sessions, create_engine, create_sessions
from taskflow_core.queue import DeliveryQueue, connect_redis
from taskflow_core.settings import Settings
from waiting import eventually

TEMPLATE = "taskflow_template"
# A busy machine fails no test: an example may take its time.
hypothesis.settings.register_profile("taskflow", deadline=None)
hypothesis.settings.load_profile("taskflow")
# A test's database may be lost with the machine: nothing is forced to the disk.
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "200"}


@contextmanager
def running(launch: Launch, *, ready: Callable[[], bool], stop: signal.Signals, log: Path) -> Iterator[None]:
    """Run a server until the block ends; it dies with this process in any case."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command_line(launch), env=launch.env, cwd=launch.cwd, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        eventually(lambda: process.poll() is not None or ready(), timeout=60)
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.send_signal(stop)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=10)


@contextmanager
def open_folder() -> Iterator[Path]:
    """Make a folder that PostgreSQL's own account may enter (pytest's temporary folders are closed to others)."""
    folder = Path(tempfile.mkdtemp(prefix="taskflow-tests-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def server_dir() -> Iterator[Path]:
    """Return the folder of the session's servers."""
    with open_folder() as folder:
        yield folder


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """Return where a test's own embedded platform may keep its data; the space in the name is part of the test."""
    with open_folder() as parent:
        yield parent / "data folder"


@pytest.fixture(scope="session")
def postgres_url(server_dir: Path) -> Iterator[str]:
    """Run one PostgreSQL for the session and return the address of its maintenance database."""
    programs = postgres.find(server_dir)
    data = postgres.data_folder(programs, server_dir)
    password, port = secrets.token_urlsafe(16), free_port()
    postgres.initialise(programs, data, password)
    address = postgres.url(password, port, "postgres")
    launch = postgres.launch(programs, data, port, options=FAST)
    log = server_dir / "postgres.log"
    with running(launch, ready=lambda: postgres.is_ready(address), stop=signal.SIGINT, log=log):
        yield address


@pytest.fixture(scope="session")
def redis_url(server_dir: Path) -> Iterator[str]:
    """Run one Valkey for the session and return its address."""
    password, port = secrets.token_urlsafe(16), free_port()
    folder = server_dir / "valkey"
    valkey.initialise(folder, port, password)
    address = valkey.url(password, port)
    launch = valkey.launch(valkey.find(), folder)
    log = server_dir / "valkey.log"
    with running(launch, ready=lambda: valkey.is_ready(address), stop=signal.SIGTERM, log=log):
        yield address


@pytest.fixture(scope="session")
def template_database(postgres_url: str, redis_url: str) -> str:
    """Bring the schema up once, in a database that each test's own is copied from."""
    postgres.ensure_database(postgres_url, TEMPLATE)
    schema.migrate(settings_for(with_database(postgres_url, TEMPLATE), redis_url))
    return TEMPLATE


@contextmanager
def fresh_settings(postgres_url: str, redis_url: str, template_database: str) -> Iterator[Settings]:
    """Make a migrated database, empty Valkey, and drop the database when the block ends."""
    name = f"test_{uuid4().hex[:12]}"
    identifier = sql.Identifier(name)
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        copy = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY")  # half the time of the usual way
        admin.execute(copy.format(identifier, sql.Identifier(template_database)))
    with Redis.from_url(redis_url) as client:
        client.flushall()
    yield settings_for(with_database(postgres_url, name), redis_url)
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(identifier))


@pytest.fixture
def settings(postgres_url: str, redis_url: str, template_database: str) -> Iterator[Settings]:
    """Return settings of a fresh, migrated database and an empty Valkey; both are gone after the test."""
    with fresh_settings(postgres_url, redis_url, template_database) as settings:
        yield settings


@pytest.fixture(scope="module")
def module_settings(postgres_url: str, redis_url: str, template_database: str) -> Iterator[Settings]:
    """Return settings like `settings`, shared by the tests of a module that leave nothing behind for each other."""
    with fresh_settings(postgres_url, redis_url, template_database) as settings:
        yield settings


@pytest.fixture
def env(settings: Settings) -> dict[str, str]:
    """Return what child processes need to find the test's database and Valkey."""
    return {
        "TASKFLOW_DATABASE_URL": settings.database_url.get_secret_value(),
        "TASKFLOW_REDIS_URL": settings.redis_url.get_secret_value(),
        "TASKFLOW_JWT_SECRET": secrets.token_urlsafe(48),
    }


@pytest.fixture
async def engine(settings: Settings) -> AsyncIterator[AsyncEngine]:
    """Return a pool of connections to the test's database."""
    engine = create_engine(settings, service="tests")
    yield engine
    await engine.dispose()


@pytest.fixture
def sessions(engine: AsyncEngine) -> Sessions:
    """Return a factory of sessions on the test's database."""
    return create_sessions(engine)


@pytest.fixture
def nursery(env: dict[str, str], tmp_path: Path) -> Iterator[Children]:
    """Start processes of the platform on the test's database and Valkey; none outlives the test."""
    with children(env, tmp_path) as started:
        yield started


@pytest.fixture
async def client(settings: Settings, sessions: Sessions) -> AsyncIterator[Client]:
    """Return what creates tasks and delivers them, as the API does."""
    redis = connect_redis(settings)
    yield Client(sessions, DeliveryQueue(redis))
    await redis.aclose()


def settings_for(database_url: str, redis_url: str) -> Settings:
    return Settings(database_url=SecretStr(database_url), redis_url=SecretStr(redis_url))


def with_database(url: str, name: str) -> str:
    return url.rpartition("/")[0] + "/" + name
