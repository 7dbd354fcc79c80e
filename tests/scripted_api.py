"""A real HTTP server that answers like the API, from a script: for faults that a healthy API does not show."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TASK_ID = "01936f5e-7c1a-7d3e-9c55-0242ac120002"
NOT_MODELLED = {"schedule_id": None, "color": "blue"}
TASK: dict[str, Any] = {
    "id": TASK_ID,
    "type": "EMAIL",
    "title": "",
    "queue": "default",
    "status": "PENDING",
    "state": "PENDING",
    "payload": {},
    "result": None,
    "error": None,
    "progress": None,
    "attempt": 0,
    "max_attempts": 3,
    "cancel_requested": False,
    "created_at": "2026-01-01T00:00:00Z",
    "started_at": None,
    "finished_at": None,
    **NOT_MODELLED,
}


@dataclass
class Answer:
    """What to answer: JSON, or raw bytes; `cut` closes the connection after them, or at once without a status."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    cut: bool = False


@dataclass
class Asked:
    """A request as it arrived; header names in lower case."""

    method: str
    path: str
    body: Any
    headers: dict[str, str]

    @property
    def token(self) -> str | None:
        return self.headers.get("authorization", "").removeprefix("Bearer ") or None


class ScriptedApi(ThreadingHTTPServer):
    """The server: what it was asked, and the function that answers."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[Asked] = []
        self.reply: Callable[[Asked], Answer] = lambda _: Answer(404, {"title": "Not Found"})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def script(self, *answers: Answer) -> None:
        """Give these answers in turn, the last one for ever."""
        rest = list(answers)
        self.reply = lambda _: rest.pop(0) if len(rest) > 1 else rest[0]


class _Handler(BaseHTTPRequestHandler):
    server: ScriptedApi

    def do_GET(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(self.command, self.path, json.loads(sent or b"null"), headers)
        self.server.asked.append(asked)
        answer = self.server.reply(asked)
        if answer.cut and answer.raw is None:
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        body = json.dumps(answer.body).encode() if answer.raw is None else answer.raw
        self.send_response(answer.status)
        length = {} if answer.cut or answer.status == 204 else {"Content-Length": str(len(body))}
        for name, value in {**length, **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if answer.status != 204:
            self.wfile.write(body)

    do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815 - the names http.server calls

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name http.server calls
        return


def task(**changes: Any) -> Answer:
    """Answer with a task."""
    return Answer(200, TASK | changes)


def frames(*events: tuple[str, int | None, dict[str, Any]]) -> bytes:
    """Return server-sent events of kinds, ids and data."""
    lines = [
        (f"id: {id_}\n" if id_ else "") + f"event: {kind}\ndata: {json.dumps(data)}\n\n" for kind, id_, data in events
    ]
    return "".join(lines).encode()


def stream(body: bytes) -> Answer:
    """Answer with the beginning of a stream, and close the connection."""
    return Answer(200, headers={"Content-Type": "text/event-stream"}, raw=b"retry: 1\n\n" + body, cut=True)


@contextmanager
def scripted_api() -> Iterator[ScriptedApi]:
    """Run the server until the block ends."""
    with ScriptedApi() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join(timeout=10)
