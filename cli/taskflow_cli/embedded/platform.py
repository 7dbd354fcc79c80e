"""`taskflow up`: the whole platform on this machine, started in order, kept running, stopped in reverse."""

import asyncio
import itertools
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import SecretStr
from sqlalchemy.exc import DBAPIError

from taskflow_cli.embedded import datadir, postgres, valkey
from taskflow_cli.embedded.children import DATABASE, Site, app_children, database_child, redis_child
from taskflow_cli.embedded.datadir import Lock, State
from taskflow_cli.embedded.errors import CannotStart
from taskflow_cli.embedded.keeper import BACKOFF_CAP_S, Child, Keeper, Surroundings
from taskflow_cli.embedded.lines import File, Sink, Terminal, say
from taskflow_cli.embedded.ports import LOCALHOST, free_port, is_free
from taskflow_cli.embedded.process import Guard
from taskflow_core import schema
from taskflow_core.clock import utc_now
from taskflow_core.settings import Settings


@dataclass(frozen=True)
class PlatformOptions:
    """What `taskflow up` is asked for. Port 0 picks a free one; `quiet` sends the logs to files in the data folder.

    `restart_cap_s` bounds the wait before a part that falls again and again is started again.
    """

    data_dir: Path = Path(".taskflow")
    host: str = LOCALHOST
    api_port: int = 8000
    slots: int = 16
    queues: str = "high,default,low"
    quiet: bool = False
    restart_cap_s: float = BACKOFF_CAP_S


class Platform:
    """The running platform: `async with Platform(options) as platform` starts it, and stops it at the end.

    Start it on the main thread: the kernel ties the children's lives to the thread that started them.
    """

    def __init__(self, options: PlatformOptions, *, apps: Callable[[Site], Sequence[Child]] = app_children) -> None:
        self.options = options
        self.folder = options.data_dir.resolve()
        self._apps = apps
        self._lock: Lock | None = None
        self._guard: Guard | None = None
        self._keepers: list[Keeper] = []
        self._own: Sink | None = None
        self._hurry = asyncio.Event()
        self._numbers = itertools.count()
        self.state: State | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> State:
        """Bring everything up and return where it is; what was started is stopped again when a part fails.

        Raises:
            CannotStart: in one sentence, and with the last lines of the part that failed.
        """
        datadir.prepare(self.folder)
        lock = Lock(self.folder)
        lock.acquire()
        self._lock = lock
        datadir.remove_state(self.folder)  # a killed platform could not
        try:
            self.state = await self._bring_up(_api_port(self.options))
            datadir.write_state(self.folder, self.state)
        except BaseException:
            await self.stop()
            raise
        return self.state

    async def stop(self) -> None:
        """Take everything down in reverse order; return when nothing is left."""
        if self._lock is None:
            return
        datadir.remove_state(self.folder)
        while self._keepers:
            await self._keepers.pop().stop()
        if self._guard is not None:
            await asyncio.to_thread(self._guard.close)
        if self._own is not None:
            self._own.close()
        self._lock.release()
        self._lock = None

    def pid(self, name: str) -> int | None:
        """Return the process id of the part of that name, or None while it is not running."""
        return next((keeper.pid for keeper in self._keepers if keeper.child.name == name), None)

    def hurry(self) -> None:
        """Cut the graces of a stop short."""
        self._hurry.set()

    async def _bring_up(self, api_port: int) -> State:
        self._own = self._sink("taskflow")
        self._guard = Guard()
        around = Surroundings(
            self._own.write, self._guard.started, self._guard.ended, self._hurry, self.options.restart_cap_s
        )
        home = await asyncio.to_thread(postgres.home_for, self.folder)
        programs = await asyncio.to_thread(postgres.find, home)
        data = postgres.data_folder(programs, home)
        site, postgres_port, redis_port = _site(self.options, self.folder, api_port, data)
        settings = Settings(database_url=SecretStr(site.database_url), redis_url=SecretStr(site.redis_url))
        maintenance = postgres.url(_database_password(self.folder), postgres_port, "postgres")
        await asyncio.to_thread(_prepare_postgres, programs, data, _database_password(self.folder))
        await self._start(around, database_child(programs, data, postgres_port, maintenance))
        await asyncio.to_thread(postgres.ensure_database, maintenance, DATABASE)
        redis_folder = self.folder / "valkey"
        valkey.initialise(redis_folder, redis_port, _redis_password(self.folder))
        await self._start(around, redis_child(await asyncio.to_thread(valkey.find), redis_folder, site.redis_url))
        await asyncio.to_thread(_migrate, settings)
        around.say("schema is up to date")
        await self._start(around, *self._apps(site))
        datadir.write_targets(self.folder, site.metrics)
        return State(
            api_url=site.api_url,
            mail_dir=str(site.mail_dir),
            smtp_port=site.smtp_port,
            pid=os.getpid(),
            database_url=site.database_url,
            redis_url=site.redis_url,
        )

    async def _start(self, around: Surroundings, *children: Child) -> None:
        """Start children that do not need each other, and wait for all; the first that fails ends the wait."""
        keepers = [Keeper(child, self._sink(child.name), around) for child in children]
        self._keepers += keepers
        starts = [asyncio.create_task(_until_ready(keeper, around)) for keeper in keepers]
        try:
            done, _ = await asyncio.wait(starts, return_when=asyncio.FIRST_EXCEPTION) if starts else (set(), set())
        finally:
            for start in starts:
                start.cancel()
            await asyncio.gather(*starts, return_exceptions=True)
        for start in done:
            start.result()

    def _sink(self, name: str) -> Sink:
        if not self.options.quiet:
            colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
            return Terminal(name, next(self._numbers), colour=colour)
        logs = self.folder / "logs"
        logs.mkdir(mode=0o700, exist_ok=True)
        return File(logs / f"{name}.log")


async def _until_ready(keeper: Keeper, around: Surroundings) -> None:
    await keeper.start()
    around.say(f"{keeper.child.name} is ready")


def run_platform(options: PlatformOptions, *, apps: Callable[[Site], Sequence[Child]] = app_children) -> int:
    """Run the platform until SIGINT, SIGTERM or SIGHUP and return the command's exit status.

    0: stopped as asked; 1: a part failed to start; 2: the request cannot be met (data in use, port taken).
    """
    try:
        return asyncio.run(_serve(Platform(options, apps=apps)))
    except CannotStart as error:
        sys.stderr.write(f"taskflow: {error.message}\n")
        return error.status
    except OSError as error:
        sys.stderr.write(f"taskflow: {error.filename or 'the platform'}: {error.strerror}\n")
        return 1


async def _serve(platform: Platform) -> int:
    began = time.monotonic()
    stopping = asyncio.Event()

    def asked_to_stop() -> None:
        if stopping.is_set():
            platform.hurry()
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, asked_to_stop)
    starting = asyncio.create_task(platform.start())
    asked = asyncio.create_task(stopping.wait())
    await asyncio.wait({starting, asked}, return_when=asyncio.FIRST_COMPLETED)
    if starting.done():
        say(_welcome(platform, starting.result(), time.monotonic() - began))
        await asked
        say("Stopping; Ctrl-C again makes it quick.")
        await platform.stop()
    else:
        starting.cancel()
        with suppress(asyncio.CancelledError):
            await starting
    say("TaskFlow has stopped.")
    return 0


def _welcome(platform: Platform, state: State, seconds: float) -> str:
    return f"""
TaskFlow is ready after {seconds:.1f} s.
  API       {state.api_url}
  API docs  {state.api_url}/docs
  Mail      {state.mail_dir} (nothing leaves this machine)
  Data      {platform.folder} (kept for the next start)
  Try       taskflow demo, taskflow ls
  Stop      Ctrl-C
"""


def _api_port(options: PlatformOptions) -> int:
    try:
        if options.api_port == 0:
            return free_port(options.host)
        if is_free(options.host, options.api_port):
            return options.api_port
    except OSError as error:
        raise CannotStart(f"cannot listen on --host {options.host}: {error.strerror}.", status=2) from None
    raise CannotStart(
        f"port {options.api_port} on {options.host} is taken by another program; "
        "choose another with --port, or let --port 0 pick a free one.",
        status=2,
    )


def _site(options: PlatformOptions, folder: Path, api_port: int, data: Path) -> tuple[Site, int, int]:
    """Return where this run's parts are, and the ports of PostgreSQL and Valkey."""
    if data.is_dir() and not (folder / "secrets" / "database").exists():
        raise CannotStart(
            f"{data} holds a database, but its password {folder / 'secrets' / 'database'} is gone: "
            f"restore that file, or remove {data} to start anew.",
            status=2,
        )
    postgres_port, redis_port = free_port(), free_port()
    site = Site(
        folder=folder,
        host=options.host,
        api_port=api_port,
        smtp_port=free_port(),
        worker_port=free_port(),
        scheduler_port=free_port(),
        database_url=postgres.url(_database_password(folder), postgres_port, DATABASE),
        redis_url=valkey.url(_redis_password(folder), redis_port),
        jwt_secret=datadir.secret(folder, "jwt", size=48),
        webhook_key=datadir.secret(folder, "webhooks", size=48),
        slots=options.slots,
        queues=options.queues,
        began=utc_now(),
    )
    return site, postgres_port, redis_port


def _prepare_postgres(programs: postgres.Programs, data: Path, password: str) -> None:
    postgres.initialise(programs, data, password)
    postgres.end_leftover(data)


def _migrate(settings: Settings) -> None:
    try:
        schema.migrate(settings)
    except (schema.UnknownRevision, DBAPIError) as error:
        raise CannotStart(f"the schema cannot be migrated: {error}.") from None


def _database_password(folder: Path) -> str:
    return datadir.secret(folder, "database", size=24)


def _redis_password(folder: Path) -> str:
    return datadir.secret(folder, "redis", size=24)
