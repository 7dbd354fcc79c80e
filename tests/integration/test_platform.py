"""`taskflow up` on an empty folder, driven as a user would: over HTTP, with signals, and with RQ's own tools."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest

from http_server import Answer, Asked, serving
from waiting import eventually

FINAL = {"COMPLETED", "FAILED", "CANCELED"}
PAGES = 12


@dataclass
class Platform:
    """A running platform and a user of it."""

    state: dict[str, Any]
    http: httpx2.Client

    def submit(self, type_: str, payload: dict[str, Any], **fields: Any) -> str:
        answer = self.http.post("/api/v1/tasks", json={"type": type_, "payload": payload, **fields})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def task(self, task_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get(f"/api/v1/tasks/{task_id}").json()
        return found

    def ended(self, task_id: str) -> dict[str, Any]:
        eventually(lambda: self.task(task_id)["status"] in FINAL, timeout=60)
        return self.task(task_id)

    def query(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.state["database_url"].replace("+psycopg", "")) as connection:
            return connection.execute(statement, values).fetchall()

    def worker_pid(self) -> int:
        (newest,) = self.query("SELECT pid FROM workers ORDER BY started_at DESC LIMIT 1")
        return int(newest[0])


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("up")
    log = (folder / "up.log").open("wb")
    env = {**os.environ, "TASKFLOW_LEASE_S": "2", "TASKFLOW_LEASE_SWEEP_INTERVAL_S": "0.5"}
    env["TASKFLOW_SHUTDOWN_GRACE_S"] = "0.5"
    command = [sys.executable, "-m", "taskflow_cli", "up", "--data-dir", str(folder / "data"), "--port", "0"]
    with log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=env)
    state = folder / "data" / "platform.json"
    try:
        eventually(lambda: state.exists() or process.poll() is not None, timeout=90)
        assert process.poll() is None, (folder / "up.log").read_text()
        known = json.loads(state.read_text())
        with httpx2.Client(base_url=known["api_url"], timeout=10, trust_env=False) as http:
            account = {"email": "ada@example.com", "password": "correct horse battery"}
            assert http.post("/api/v1/auth/register", json=account).status_code == 201
            token = http.post("/api/v1/auth/login", json=account).json()["access_token"]
            http.headers["Authorization"] = f"Bearer {token}"
            yield Platform(known, http)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    assert not state.exists()


def records(asked: Asked, *, delay_s: float = 0.0) -> Answer:
    """Answer a page of ten records; the last page has no next one."""
    page = int(asked.path.partition("page=")[2] or 1)
    threading.Event().wait(delay_s)  # a slow source
    items = [{"id": f"{page}-{number}", "price": number} for number in range(10)]
    return Answer(
        body=json.dumps({"items": items if page <= PAGES else []}).encode(),
        headers={"Content-Type": "application/json"},
    )


def sync_of(url: str, collection: str) -> dict[str, Any]:
    pagination = {"kind": "page_param", "name": "page"}
    source = {"url": url, "records_path": "items", "pagination": pagination}
    return {"source": source, "key": "id", "target": {"collection": collection}}


def test_the_three_types_complete_over_http(platform: Platform) -> None:
    with serving(records) as source:
        mail = platform.submit(
            "EMAIL",
            {"to": ["bob@example.com"], "subject": "Hello", "text": "Hi {{ who }}", "variables": {"who": "Bob"}},
        )
        report = platform.submit("REPORT", {"last": "24h", "format": ["csv", "html", "pdf", "xlsx"]})
        sync = platform.submit("SYNC", sync_of(source.url("/items"), "three"))
        ended = [platform.ended(task_id) for task_id in (mail, report, sync)]
    assert [task["status"] for task in ended] == ["COMPLETED"] * 3
    assert ended[2]["result"]["created"] == PAGES * 10
    (caught,) = Path(platform.state["mail_dir"]).glob("*.eml")
    assert "Hi Bob" in caught.read_text()
    names = [file["name"] for file in ended[1]["result"]["files"]]
    assert {Path(name).suffix for name in names} == {".csv", ".html", ".pdf", ".xlsx"}
    for name in names:
        assert platform.http.get(f"/api/v1/tasks/{report}/files/{name}").status_code == 200


def test_a_sync_whose_worker_is_killed_completes_on_a_second_attempt_with_one_effect(platform: Platform) -> None:
    with serving(lambda asked: records(asked, delay_s=0.15)) as source:
        sync = platform.submit("SYNC", sync_of(source.url("/items"), "killed"))
        eventually(lambda: len(source.asked) >= 4)
        os.kill(platform.worker_pid(), signal.SIGKILL)
        task = platform.ended(sync)
    assert (task["status"], task["attempt"]) == ("COMPLETED", 2)
    assert (task["result"]["created"], task["result"]["updated"]) == (PAGES * 10, 0)
    assert platform.query("SELECT count(*) FROM synced_records WHERE collection = 'killed'") == [(PAGES * 10,)]
    outcomes = platform.http.get(f"/api/v1/tasks/{sync}/attempts").json()["items"]
    assert [attempt["outcome"] for attempt in outcomes] == ["lost", "completed"]


def test_a_busy_worker_that_is_told_to_stop_burns_no_attempt(platform: Platform) -> None:
    with serving(lambda asked: records(asked, delay_s=0.3)) as source:
        sync = platform.submit("SYNC", sync_of(source.url("/items"), "stopped"), max_attempts=1)
        eventually(lambda: len(source.asked) >= 3)
        os.kill(platform.worker_pid(), signal.SIGTERM)
        task = platform.ended(sync)
    assert (task["status"], task["attempt"]) == ("COMPLETED", 1)


def test_rq_info_lists_the_worker_and_its_queues(platform: Platform) -> None:
    command = [str(Path(sys.executable).parent / "rq"), "info", "--url", platform.state["redis_url"]]

    def shown() -> bool:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
        return "taskflow-" in listed and "high, default, low" in listed

    eventually(shown)


def test_the_readmes_lines_for_curl_work_as_they_stand(platform: Platform) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    block = readme.partition("    api=http://127.0.0.1:8000/api/v1\n")[2].partition("\n\n")[0]
    script = f"set -eu\napi={platform.state['api_url']}/api/v1\n{block}\n"
    said = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=True).stdout
    assert '"email":"bob@example.com"' in said
    assert '"type":"REPORT"' in said
    assert '"items":[' in said
