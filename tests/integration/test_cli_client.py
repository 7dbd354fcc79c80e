"""The client against a real HTTP server that answers from a script: for faults that a healthy API does not show."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from taskflow_cli.client import Client
from taskflow_cli.credentials import Credentials, Login
from taskflow_cli.failures import DeadlinePassed, Failure, Refused, Unreachable, render
from taskflow_cli.following import follow
from taskflow_cli.location import Location
from taskflow_cli.wire import TaskFile

TASK_ID = "01936f5e-7c1a-7d3e-9c55-0242ac120002"
NOT_MODELLED = {"priority": 7, "tags": ["a"], "version": 3}
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
    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    cut: bool = False


@dataclass
class Asked:
    method: str
    path: str
    token: str | None
    body: Any
    key: str | None = None


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[Asked] = []
        self.reply: Callable[[Asked], Answer] = lambda _: Answer(404, {"title": "Not Found"})

    @property
    def location(self) -> Location:
        return Location(f"http://127.0.0.1:{self.server_port}", "a test")

    def script(self, *answers: Answer) -> None:
        """Give these answers in turn, the last one for ever."""
        rest = list(answers)
        self.reply = lambda _: rest.pop(0) if len(rest) > 1 else rest[0]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        body = json.loads(self.rfile.read(length) or b"null")
        asked = Asked(self.command, self.path, token, body, self.headers.get("Idempotency-Key"))
        self.server.asked.append(asked)
        answer = self.server.reply(asked)
        if answer.cut:
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        body = json.dumps(answer.body).encode() if answer.raw is None else answer.raw
        self.send_response(answer.status)
        for name, value in {"Content-Length": str(len(body)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815 - the name http.server calls

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name http.server calls
        return


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join(timeout=10)


@pytest.fixture
def credentials(tmp_path: Path) -> Credentials:
    return Credentials(tmp_path / "credentials.json")


def store(credentials: Credentials, server: Server, access: str, refresh: str) -> None:
    with credentials.lock():
        credentials.put(server.location.url, Login("ada@example.com", access, refresh))


def task(**changes: Any) -> Answer:
    return Answer(200, TASK | changes)


def test_fields_the_client_does_not_know_are_kept(server: Server) -> None:
    server.script(task())
    with Client(server.location) as client:
        assert client.task(TASK_ID).to_json() == TASK


def test_a_read_is_repeated_after_503_and_a_cut_connection(server: Server) -> None:
    server.script(Answer(503, {"title": "Service Unavailable"}, {"Retry-After": "0"}), Answer(cut=True), task())
    with Client(server.location) as client:
        assert client.task(TASK_ID).id == TASK_ID
    assert len(server.asked) == 3


def test_a_read_is_repeated_a_few_times_only(server: Server) -> None:
    server.script(Answer(503, {"title": "Service Unavailable", "code": "unavailable"}))
    with Client(server.location) as client, pytest.raises(Refused, match="503, unavailable"):
        client.task(TASK_ID)
    assert len(server.asked) == 4


@pytest.mark.parametrize(
    "answer",
    [
        Answer(503, {"title": "Service Unavailable"}),
        Answer(cut=True),
        Answer(409, {"title": "Conflict", "code": "idempotency_conflict"}),
    ],
)
def test_a_submission_that_may_have_arrived_is_repeated_under_its_key(server: Server, answer: Answer) -> None:
    server.script(answer, task())
    with Client(server.location) as client:
        assert client.submit({"type": "EMAIL", "payload": {}}).id == TASK_ID
        assert client.submit({"type": "EMAIL", "payload": {}}).id == TASK_ID
    first, again, other = [asked.key for asked in server.asked]
    assert first == again
    assert other not in {None, first}


def test_a_submission_that_the_api_refuses_is_not_repeated(server: Server) -> None:
    server.script(Answer(409, {"title": "Conflict", "code": "duplicate_task"}))
    with Client(server.location) as client, pytest.raises(Refused, match="duplicate_task"):
        client.submit({"type": "EMAIL", "payload": {}})
    assert len(server.asked) == 1


@pytest.mark.parametrize("answer", [Answer(503, {"title": "Service Unavailable"}), Answer(cut=True)])
def test_a_change_without_a_key_that_may_have_arrived_is_not_repeated(server: Server, answer: Answer) -> None:
    server.script(answer)
    with Client(server.location) as client, pytest.raises((Refused, Unreachable)):
        client.retry(TASK_ID)
    assert len(server.asked) == 1


def test_nobody_at_the_address_is_said_with_its_source_and_a_way_on() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        location = Location(f"http://127.0.0.1:{probe.getsockname()[1]}", "TASKFLOW_API_URL")
    with Client(location) as client, pytest.raises(Unreachable) as caught:
        client.me()
    text = render(caught.value)
    assert f"cannot reach the API at {location.url} (from TASKFLOW_API_URL)" in text
    assert "taskflow up" in text


@pytest.mark.parametrize(
    "answer",
    [Answer(raw=b"<html>hello</html>"), Answer(body=[]), Answer(body={"id": 1})],
    ids=["HTML", "a list", "another object"],
)
def test_a_server_that_is_no_taskflow_is_recognised(server: Server, answer: Answer) -> None:
    server.script(answer)
    with Client(server.location) as client, pytest.raises(Unreachable, match="does not answer like TaskFlow"):
        client.task(TASK_ID)


def test_an_error_page_that_is_no_problem_document_is_shown_by_its_status(server: Server) -> None:
    server.script(Answer(502, raw=b"<html>"))
    with Client(server.location) as client, pytest.raises(Refused, match=r"Bad Gateway \(502\)"):
        client.task(TASK_ID)


def test_an_expired_access_token_is_renewed_and_kept(server: Server, credentials: Credentials) -> None:
    store(credentials, server, "old", "refresh-1")

    def reply(asked: Asked) -> Answer:
        if asked.path.endswith("/auth/refresh"):
            assert asked.body == {"refresh_token": "refresh-1"}
            return Answer(200, {"access_token": "new", "refresh_token": "refresh-2"})
        return task() if asked.token == "new" else Answer(401, {"title": "Unauthorized"})

    server.reply = reply
    with Client(server.location, credentials=credentials) as client:
        assert client.task(TASK_ID).id == TASK_ID
    assert credentials.get(server.location.url) == Login("ada@example.com", "new", "refresh-2")


def test_commands_at_the_same_time_use_a_refresh_token_once(server: Server, credentials: Credentials) -> None:
    store(credentials, server, "old", "refresh-1")
    both_refused = threading.Barrier(4)

    def reply(asked: Asked) -> Answer:
        if asked.path.endswith("/auth/refresh"):
            return Answer(200, {"access_token": "new", "refresh_token": "refresh-2"})
        if asked.token == "new":
            return task()
        both_refused.wait(timeout=20)
        return Answer(401, {"title": "Unauthorized"})

    server.reply = reply

    def command(_: int) -> str:
        with Client(server.location, credentials=credentials) as client:
            return client.task(TASK_ID).id

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(command, range(4))) == [TASK_ID] * 4
    assert [asked.path for asked in server.asked].count("/api/v1/auth/refresh") == 1


def test_a_session_that_has_ended_is_forgotten_and_asks_for_a_login(server: Server, credentials: Credentials) -> None:
    store(credentials, server, "old", "used")
    server.script(Answer(401, {"title": "Unauthorized", "code": "invalid_token"}))
    with Client(server.location, credentials=credentials) as client, pytest.raises(Refused) as caught:
        client.task(TASK_ID)
    assert caught.value.hint == "run: taskflow login"
    assert credentials.get(server.location.url) is None


def test_a_given_token_is_never_renewed(server: Server) -> None:
    server.script(Answer(401, {"title": "Unauthorized"}))
    with Client(server.location, token="mine") as client, pytest.raises(Refused) as caught:
        client.task(TASK_ID)
    assert "TASKFLOW_TOKEN" in caught.value.hint
    assert [asked.token for asked in server.asked] == ["mine"]


def test_a_login_is_not_sent_to_another_api(server: Server, credentials: Credentials) -> None:
    with credentials.lock():
        credentials.put("http://127.0.0.1:1", Login("ada@example.com", "secret", "secret"))
    server.script(task())
    with Client(server.location, credentials=credentials) as client:
        client.task(TASK_ID)
    assert server.asked[0].token is None


def test_a_redirect_is_not_followed(server: Server) -> None:
    server.script(Answer(307, headers={"Location": "http://127.0.0.1:1/"}))
    with Client(server.location, token="mine") as client, pytest.raises(Refused, match="307"):
        client.task(TASK_ID)


@pytest.mark.parametrize("name", ["../up.csv", "a/b", "..", ""])
def test_a_file_name_cannot_leave_the_folder(server: Server, tmp_path: Path, name: str) -> None:
    with Client(server.location) as client, pytest.raises(Failure, match="no plain file name"):
        client.download(TASK_ID, TaskFile(name=name, media_type="text/csv", size=1), tmp_path)
    assert server.asked == []


def test_a_download_that_breaks_leaves_no_file(server: Server, tmp_path: Path) -> None:
    server.script(Answer(raw=b"half", headers={"Content-Length": "100"}))
    with Client(server.location) as client, pytest.raises(Unreachable):
        client.download(TASK_ID, TaskFile(name="r.csv", media_type="text/csv", size=100), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_with_an_odd_name_is_asked_for_by_that_name(server: Server, tmp_path: Path) -> None:
    server.script(Answer(raw=b"a,b\n"))
    with Client(server.location) as client:
        path = client.download(TASK_ID, TaskFile(name="a b?#%.csv", media_type="text/csv", size=4), tmp_path)
    assert path.read_bytes() == b"a,b\n"
    assert server.asked[0].path == f"/api/v1/tasks/{TASK_ID}/files/a%20b%3F%23%25.csv"


def test_following_goes_on_through_an_outage(server: Server) -> None:
    away = [Answer(503, {"title": "Service Unavailable"})] * 5
    server.script(task(), *away, task(status="COMPLETED", state="COMPLETED"))
    with Client(server.location) as client:
        states = [seen.state for seen in follow(client, [TASK_ID], timeout_s=60)]
    assert states == ["PENDING", "COMPLETED"]


def test_following_an_api_that_never_answered_ends_at_once(server: Server) -> None:
    server.script(Answer(cut=True))
    with Client(server.location) as client, pytest.raises(Unreachable):
        list(follow(client, [TASK_ID], timeout_s=60))
    assert len(server.asked) == 4


def test_following_what_does_not_exist_ends_at_once(server: Server) -> None:
    server.script(Answer(404, {"title": "Not Found", "code": "not_found"}))
    with Client(server.location) as client, pytest.raises(Refused, match="404"):
        list(follow(client, [TASK_ID], timeout_s=60))


def test_following_stops_at_its_deadline(server: Server) -> None:
    server.script(task(status="RUNNING", state="RUNNING"))
    with Client(server.location) as client, pytest.raises(DeadlinePassed) as caught:
        list(follow(client, [TASK_ID], timeout_s=0.3))
    assert caught.value.exit_code == 3
    assert caught.value.details == (TASK_ID,)
