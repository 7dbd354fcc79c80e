"""What open streams cost one API process: resident memory and processor time, idle, with 1,000 of them, under load."""

import os
import secrets
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

import httpx2

from memory import resident_mib
from servers import STARTING_S, Servers, servers
from taskflow_cli.embedded.ports import free_port
from throughput import PLUGIN

STREAMS = 1000
TASKS = 100
LOADED_S = 5.0
SETTLED_S = 2.0
ACCOUNT = {"email": "streams@example.com", "password": "a long enough one"}
TASK = {"type": "ECHO", "payload": {"value": 1}}


@dataclass
class Process:
    """A running API process, and a client that is logged in."""

    pid: int
    port: int
    http: httpx2.Client

    def create(self, count: int) -> int:
        """Create tasks one by one and return how many."""
        for _ in range(count):
            self.http.post("/api/v1/tasks", json=TASK).raise_for_status()
        return count

    def paths(self) -> list[str]:
        """Return what the streams follow: half of them a task each, half all events."""
        half = STREAMS // 2
        made = self.http.post("/api/v1/tasks:batch", json={"items": [TASK] * half}).raise_for_status().json()["items"]
        return [f"/api/v1/tasks/{item['task']['id']}/events" for item in made] + ["/api/v1/events"] * half


def report(running: Servers) -> Iterator[str]:
    """Yield the section of the results: half of the streams follow all of a user's events, half one task each."""
    with ExitStack() as stack:
        ours = stack.enter_context(_serving(running))
        rows = [("started", resident_mib(ours.pid))]
        ours.create(TASKS)
        rows.append(("after some requests", resident_mib(ours.pid)))
        connections = stack.enter_context(_Open(ours))
        rows.append((f"{STREAMS:,} streams, nothing happens", resident_mib(ours.pid)))
        created = 0
        deadline = time.monotonic() + LOADED_S
        while time.monotonic() < deadline:
            created += ours.create(20)
            connections.drain()
        rows.append((f"{STREAMS:,} streams, while {created:,} tasks are created", resident_mib(ours.pid)))
        connections.drain(SETTLED_S)
    yield f"## Memory of one API process with {STREAMS:,} open streams"
    yield ""
    yield "| | MiB |"
    yield "|---|---|"
    yield from (f"| {name} | {mib:.0f} |" for name, mib in rows)
    yield ""
    yield f"The streams were sent {connections.received / 2**20:,.0f} MiB of events."


class _Open:
    """So many open streams, read by one selector."""

    def __init__(self, ours: Process) -> None:
        self.received = 0
        self._selector = selectors.DefaultSelector()
        self._sockets = [self._connect(ours, path) for path in ours.paths()]

    def __enter__(self) -> "_Open":
        self.drain(SETTLED_S)
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._sockets:
            connection.close()
        self._selector.close()

    def drain(self, seconds: float = 0.0) -> None:
        """Read what has come, for at least so long."""
        deadline = time.monotonic() + seconds
        while found := self._selector.select(timeout=max(0.0, deadline - time.monotonic())):
            for key, _ in found:
                piece = key.fileobj.recv(65_536)  # type: ignore[union-attr] # a socket
                if not piece:
                    raise RuntimeError("a stream ended")
                self.received += len(piece)

    def _connect(self, ours: Process, path: str) -> socket.socket:
        bearer = ours.http.headers["Authorization"]
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {bearer}\r\nAccept: text/event-stream\r\n\r\n"
        connection = socket.create_connection(("127.0.0.1", ours.port), timeout=STARTING_S)
        connection.sendall(head.encode())
        if not (answer := connection.recv(65_536)).startswith(b"HTTP/1.1 200"):
            raise RuntimeError(answer.decode())
        self.received += len(answer)
        connection.setblocking(False)
        self._selector.register(connection, selectors.EVENT_READ)
        return connection


@contextmanager
def _serving(running: Servers) -> Iterator[Process]:
    port = free_port()
    env = running.env | {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(PLUGIN),
        "TASKFLOW_JWT_SECRET": secrets.token_urlsafe(48),
        "TASKFLOW_API_PORT": str(port),
        "TASKFLOW_MAX_STREAMS": str(STREAMS),
        "TASKFLOW_MAX_STREAMS_PER_USER": str(STREAMS),
    }
    process = subprocess.Popen([sys.executable, "-m", "taskflow_api"], env=env)
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=STARTING_S) as http:
            _await_ready(process, http)
            http.post("/api/v1/auth/register", json=ACCOUNT).raise_for_status()
            token = http.post("/api/v1/auth/login", json=ACCOUNT).raise_for_status().json()["access_token"]
            http.headers["Authorization"] = f"Bearer {token}"
            yield Process(process.pid, port, http)
    finally:
        process.kill()
        process.wait()


def _await_ready(process: "subprocess.Popen[bytes]", http: httpx2.Client) -> None:
    deadline = time.monotonic() + STARTING_S
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(httpx2.TransportError):
            if http.get("/health/ready").status_code == 200:
                return
        time.sleep(0.1)
    raise RuntimeError("the API did not start")


if __name__ == "__main__":
    with servers() as alone:
        for line in report(alone):
            print(line, flush=True)
