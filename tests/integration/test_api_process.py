"""The API as a real process: started from its environment, driven over a socket, stopped by a signal."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from api_app import PASSWORD
from taskflow_cli.embedded.ports import free_port
from waiting import eventually

COMMAND = [sys.executable, "-m", "taskflow_api"]
STOP_TIMEOUT_S = 30
SERVER = {"TASKFLOW_BCRYPT_ROUNDS": "4", "TASKFLOW_HEADER_TIMEOUT_S": "3", "TASKFLOW_MAX_CONNECTIONS": "20"}


@dataclass
class Server:
    """A running API process."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return httpx2.get(f"{self.url}/health/ready", timeout=5).status_code == 200
        except httpx2.TransportError:
            return False


@pytest.fixture
def server(env: dict[str, str], tmp_path: Path) -> Iterator[Server]:
    port, log = free_port(), tmp_path / "api.log"
    settings = env | SERVER | {"TASKFLOW_API_PORT": str(port)}
    with log.open("wb") as output:
        process = subprocess.Popen(COMMAND, env=os.environ | settings, stdout=output, stderr=subprocess.STDOUT)
    server = Server(process, port, log)
    try:
        eventually(server.is_ready, timeout=60)
        yield server
    finally:
        process.kill()
        process.wait(timeout=STOP_TIMEOUT_S)


def test_the_process_serves_tasks_logs_requests_without_secrets_and_stops_on_sigterm(server: Server) -> None:
    with httpx2.Client(base_url=server.url, timeout=30) as client:
        account = {"email": "ada@example.com", "password": PASSWORD}
        assert client.post("/api/v1/auth/register", json=account).status_code == 201
        tokens = client.post("/api/v1/auth/login", json=account).json()
        client.headers["Authorization"] = f"Bearer {tokens['access_token']}"
        names = [kind["name"] for kind in client.get("/api/v1/task-types").json()["items"]]
        assert {"EMAIL", "REPORT", "SYNC"} <= set(names)
        letter = {"to": [{"not": "an address"}], "subject": "Hello", "text": "Hello"}
        refused = client.post("/api/v1/tasks", json={"type": "EMAIL", "payload": letter})
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["field"].startswith("payload.to.0")
        body = {"type": "EMAIL", "payload": letter | {"to": ["bob@example.com"]}}
        made = client.post("/api/v1/tasks", json=body, headers={"X-Request-ID": "mine"})
        assert (made.status_code, made.headers["x-request-id"]) == (201, "mine")
        assert client.get(made.headers["location"]).json()["state"] == "PENDING"
        assert "server" not in made.headers
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=STOP_TIMEOUT_S) == 0
    text = server.log.read_text()
    assert PASSWORD not in text
    assert tokens["access_token"] not in text
    lines = [json.loads(line) for line in text.splitlines()]
    (created,) = [line for line in lines if line.get("request_id") == "mine"]
    assert created["event"] == "request.finished"
    assert created["service"] == "api"
    assert (created["method"], created["route"], created["status"]) == ("POST", "/api/v1/tasks", 201)
    assert created["user_id"] is not None
    assert created["duration_ms"] > 0


def test_a_request_that_is_under_way_is_answered_after_sigterm(server: Server) -> None:
    body = json.dumps({"email": "ada@example.com", "password": PASSWORD}).encode()
    head = (
        "POST /api/v1/auth/register HTTP/1.1\r\nHost: taskflow.test\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=STOP_TIMEOUT_S) as connection:
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 100"), "the endpoint asks for the body"
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: not server_accepts(server.port), timeout=STOP_TIMEOUT_S)
        connection.sendall(body)
        assert connection.recv(4096).startswith(b"HTTP/1.1 201")
    assert server.process.wait(timeout=STOP_TIMEOUT_S) == 0


def server_accepts(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            return True
    except OSError:
        return False


def test_a_body_over_its_bound_is_answered_and_the_connection_serves_the_next_request(server: Server) -> None:
    head = "POST /api/v1/auth/login HTTP/1.1\r\nHost: taskflow.test\r\nTransfer-Encoding: chunked\r\n\r\n"
    head = head.replace("Host:", "Content-Type: application/json\r\nHost:")
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=STOP_TIMEOUT_S) as connection:
        connection.sendall(head.encode() + chunk * 20 + b"0\r\n\r\n")
        assert read_until(connection, b"}").startswith(b"HTTP/1.1 413")
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: taskflow.test\r\n\r\n")
        assert read_until(connection, b"}").startswith(b"HTTP/1.1 200")


def test_an_announced_length_over_the_bound_is_refused_before_the_body_is_sent(server: Server) -> None:
    head = "POST /api/v1/auth/login HTTP/1.1\r\nHost: taskflow.test\r\nContent-Length: 999999999999\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=STOP_TIMEOUT_S) as connection:
        connection.sendall(head.encode())
        answer = read_until(connection, b"}")
    assert answer.startswith(b"HTTP/1.1 413"), answer
    assert b'"code":"too_large"' in answer


def test_a_client_that_sends_a_byte_at_a_time_is_closed_and_others_are_served(server: Server) -> None:
    address = ("127.0.0.1", server.port)
    with socket.create_connection(address, timeout=STOP_TIMEOUT_S) as slow:
        slow.sendall(b"GET /health/live HTTP/1.1\r\nX-Slow: ")
        slow.settimeout(0.1)
        said = dribble_until_answered(slow)
    assert b'"code":"request_timeout"' in said
    with contextlib.ExitStack() as held:
        for _ in range(int(SERVER["TASKFLOW_MAX_CONNECTIONS"])):
            held.enter_context(socket.create_connection(address, timeout=STOP_TIMEOUT_S))
        with socket.create_connection(address, timeout=STOP_TIMEOUT_S) as late:
            assert b'"code":"too_many_connections"' in read_until(late, b"}")
    eventually(server.is_ready)


def dribble_until_answered(connection: socket.socket) -> bytes:
    """Send a byte each tenth of a second until the server says something."""
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while time.monotonic() < deadline:
        connection.sendall(b"x")
        with contextlib.suppress(TimeoutError):
            return connection.recv(4096)
    raise AssertionError("nobody closed it")


def read_until(connection: socket.socket, end: bytes) -> bytes:
    answer = b""
    while end not in answer and (piece := connection.recv(65_536)):
        answer += piece
    return answer


def test_the_lines_in_the_documentation_work_as_they_stand(server: Server) -> None:
    page = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    lines = page.split("```sh\n")[1].split("```")[0].replace("http://127.0.0.1:8000", server.url)
    done = subprocess.run(["bash", "-euc", lines], capture_output=True, text=True, timeout=60, check=True)
    page_of_tasks = json.loads(done.stdout[done.stdout.rindex('{"items"') :])
    assert [task["type"] for task in page_of_tasks["items"]] == ["EMAIL"]


def test_a_missing_secret_stops_the_start_with_a_sentence_that_names_it(env: dict[str, str]) -> None:
    del env["TASKFLOW_JWT_SECRET"]
    done = subprocess.run(COMMAND, env=os.environ | env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "TASKFLOW_JWT_SECRET is missing" in done.stderr
