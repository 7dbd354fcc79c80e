"""A PostgreSQL and a Valkey that a test may freeze, kill and start again, and a network between them and a process."""

import asyncio
import contextlib
import secrets
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from taskflow_cli.embedded import postgres, valkey
from taskflow_cli.embedded.ports import free_port
from taskflow_cli.embedded.process import Launch, command_line
from waiting import eventually

# Commits must survive a crash of the server, not one of the machine: they reach the kernel, not the disk.
CRASH_SAFE = {"fsync": "off", "synchronous_commit": "on", "max_connections": "200"}
CHUNK = 65_536


class Server:
    """A server process on a fixed port and folder."""

    def __init__(self, launch: Launch, *, url: str, ready: Callable[[str], bool], log: Path) -> None:
        self.url = url
        self.folder = launch.cwd
        self._launch = launch
        self._ready = ready
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it unless it runs, and wait until it answers. Call it on the main thread, whose end it shares."""
        if self._process is None or self._process.poll() is not None:
            with self._log.open("ab") as output:
                self._process = subprocess.Popen(
                    command_line(self._launch),
                    env=self._launch.env,
                    cwd=self._launch.cwd,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
        process = self._process
        process.send_signal(signal.SIGCONT)
        eventually(lambda: process.poll() is not None or self._ready(self.url), timeout=60)
        assert process.poll() is None, self._log.read_text()

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self, number: signal.Signals) -> None:
        """Send the signal and wait until the process is gone."""
        self.send(number)
        assert self._process is not None
        self._process.wait(timeout=60)


@dataclass
class Servers:
    """What a module of tests has for itself."""

    postgres: Server
    valkey: Server

    def start(self) -> None:
        """Start what does not run."""
        self.postgres.start()
        self.valkey.start()


@contextmanager
def own_servers(home: Path, folder: Path) -> Iterator[Servers]:
    """Run a PostgreSQL and a Valkey on empty folders until the block ends; `home` keeps PostgreSQL's programs."""
    folder.mkdir()
    folder.chmod(0o711)
    programs = postgres.find(home)
    data = postgres.data_folder(programs, folder)
    password, port = secrets.token_urlsafe(16), free_port()
    postgres.initialise(programs, data, password)
    launch = postgres.launch(programs, data, port, options=CRASH_SAFE)
    url = postgres.url(password, port, "postgres")
    truth = Server(launch, url=url, ready=postgres.is_ready, log=folder / "postgres.log")
    password, port = secrets.token_urlsafe(16), free_port()
    valkey.initialise(folder / "valkey", port, password)
    launch = valkey.launch(valkey.find(), folder / "valkey")
    bell = Server(launch, url=valkey.url(password, port), ready=valkey.is_ready, log=folder / "valkey.log")
    servers = Servers(truth, bell)
    try:
        servers.start()
        yield servers
    finally:
        truth.stop(signal.SIGQUIT)
        bell.stop(signal.SIGKILL)


class Network:
    """A stretch of network to one server, which a test may hold up or make lose an answer."""

    def __init__(self, port: int) -> None:
        self.port = 0
        self.lost = 0
        self._target = port
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._loses: bytes | None = None
        self._ways: set[asyncio.Task[None]] = set()

    def hold(self) -> None:
        """Let nothing through until `flow`; connections stay open."""
        self._flowing.clear()

    def flow(self) -> None:
        """Let everything through, what was held up first."""
        self._flowing.set()

    def lose_answer_to(self, request: bytes) -> None:
        """Bring the next message that holds these bytes to the server, and break its connection instead of answering.

        The server has then done what it was asked for, and the client does not know.
        """
        self._loses = request

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answers, requests = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        broken = asyncio.Event()
        ways = {
            asyncio.create_task(self._forward(reader, requests, broken)),
            asyncio.create_task(self._backward(answers, writer, broken)),
        }
        self._ways |= ways
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        self._ways -= ways
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        for end in (writer, requests):
            end.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, broken: asyncio.Event) -> None:
        while piece := await reader.read(CHUNK):
            await self._flowing.wait()
            if self._loses is not None and self._loses in piece:
                self._loses = None
                broken.set()
            writer.write(piece)
            await writer.drain()

    async def _backward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, broken: asyncio.Event
    ) -> None:
        while piece := await reader.read(CHUNK):
            if broken.is_set():
                self.lost += 1
                return
            await self._flowing.wait()
            writer.write(piece)
            await writer.drain()

    def cut(self) -> None:
        """Break what is connected; new connections are served."""
        for way in self._ways:
            way.cancel()

    @classmethod
    @asynccontextmanager
    async def to(cls, port: int) -> AsyncIterator["Network"]:
        """Serve on a free port until the block ends."""
        network = cls(port)
        server = await asyncio.start_server(network._serve, "127.0.0.1", 0)
        network.port = server.sockets[0].getsockname()[1]
        try:
            yield network
        finally:
            server.close()
            network.cut()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(server.wait_closed(), 5)
