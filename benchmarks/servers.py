"""A PostgreSQL and a Valkey of their own for one run, durable as in production (fsync on, every commit flushed)."""

import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from taskflow_cli.embedded import postgres, valkey
from taskflow_cli.embedded.ports import free_port
from taskflow_cli.embedded.process import Launch, command_line
from taskflow_core import schema
from taskflow_core.settings import Settings

OPTIONS = {"shared_buffers": "512MB", "max_wal_size": "4GB", "max_connections": "200"}
STARTING_S = 60


@dataclass(frozen=True)
class Servers:
    """Where the servers of this run are, and the settings that name them."""

    folder: Path
    database_url: str
    redis_url: str

    @property
    def settings(self) -> Settings:
        """Return settings for the use-cases."""
        return Settings(database_url=SecretStr(self.database_url), redis_url=SecretStr(self.redis_url))

    @property
    def env(self) -> dict[str, str]:
        """Return what TaskFlow's processes need."""
        return {
            "TASKFLOW_DATABASE_URL": self.database_url,
            "TASKFLOW_REDIS_URL": self.redis_url,
            "TASKFLOW_LOG_LEVEL": "warning",
            "TASKFLOW_REQUESTS_PER_MINUTE": "1000000000",  # counted like any other, never reached
        }


@contextmanager
def servers() -> Iterator[Servers]:
    """Start both, migrate, and remove everything at the end."""
    folder = Path(tempfile.mkdtemp(prefix="taskflow-bench-"))
    folder.chmod(0o711)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        password, port = secrets.token_urlsafe(16), free_port()
        programs = postgres.find(folder)
        data = postgres.data_folder(programs, folder)
        postgres.initialise(programs, data, password)
        address = postgres.url(password, port, "postgres")
        launch = postgres.launch(programs, data, port, options=OPTIONS)
        stack.enter_context(server_process(launch, lambda: postgres.is_ready(address), signal.SIGINT))
        redis_password, redis_port = secrets.token_urlsafe(16), free_port()
        valkey.initialise(folder / "valkey", redis_port, redis_password)
        redis_url = valkey.url(redis_password, redis_port)
        redis_launch = valkey.launch(valkey.find(), folder / "valkey")
        stack.enter_context(server_process(redis_launch, lambda: valkey.is_ready(redis_url), signal.SIGTERM))
        postgres.ensure_database(address, "taskflow")
        running = Servers(folder, postgres.url(password, port, "taskflow"), redis_url)
        schema.migrate(running.settings)
        yield running


@contextmanager
def server_process(launch: Launch, ready: Callable[[], bool], stop: signal.Signals) -> Iterator[None]:
    """Run a server until the block ends, which begins when it is ready."""
    process = subprocess.Popen(
        command_line(launch), env=launch.env, cwd=launch.cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + STARTING_S
    try:
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{launch.command[0]} did not start")
            time.sleep(0.05)
        yield
    finally:
        process.send_signal(stop)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
