"""What the demo brings along: its source of records, and how it finds mail."""

import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urljoin

import httpx2
import pytest

from scripted_api import scripted_api, task
from taskflow_cli.demo import source
from taskflow_cli.demo.results import find_mail
from taskflow_cli.demo.scenario import BESIDE_WORKERS, Setting, choose_source
from taskflow_cli.embedded.ports import free_port
from taskflow_client.sync import TaskFlow
from waiting import eventually

HERE = "http://127.0.0.1:1/products"


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "PAUSE_S", 0)


def test_the_source_is_read_to_its_end_by_its_own_links() -> None:
    records = []
    with source.serving() as server, httpx2.Client() as client:
        url: str | None = server.url
        while url is not None:
            page = client.get(url).raise_for_status().json()
            records += page["items"]
            url = page["next"] and urljoin(url, page["next"])
    assert [record["sku"] for record in records] == [f"SKU-{number:04}" for number in range(1, 201)]


def test_the_source_says_when_a_page_is_known() -> None:
    with source.serving() as server, httpx2.Client() as client:
        first = client.get(server.url)
        again = client.get(server.url, headers={"If-None-Match": first.headers["ETag"]})
        other = client.get(f"{server.url}?page=2", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert other.status_code == 200


@pytest.mark.parametrize("path", ["/", "/products?page=0", "/products?page=x"])
def test_the_source_has_nothing_else(path: str) -> None:
    with source.serving() as server, httpx2.Client() as client:
        assert client.get(f"http://127.0.0.1:{server.server_port}{path}").status_code == 404


def test_the_source_runs_as_a_process_of_its_own_and_ends_when_asked() -> None:
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "taskflow_cli.demo.source", "--port", str(port)])

    def is_live() -> bool:
        with contextlib.suppress(httpx2.HTTPError):
            return httpx2.get(f"http://127.0.0.1:{port}/health/live").status_code == 200
        return False

    try:
        eventually(is_live)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.wait(timeout=10)


@pytest.mark.parametrize(
    ("status", "named", "is_here", "chosen", "asked"),
    [
        pytest.param("COMPLETED", None, False, HERE, 2, id="a worker shows that it may fetch from here"),
        pytest.param("FAILED", None, False, BESIDE_WORKERS, 2, id="it may not"),
        pytest.param("FAILED", None, True, HERE, 0, id="the platform is known to run here"),
        pytest.param("FAILED", "http://a.example/products", True, "http://a.example/products", 0, id="one is named"),
    ],
)
def test_the_source_is_one_that_workers_may_fetch(
    tmp_path: Path, status: str, named: str | None, is_here: bool, chosen: str, asked: int
) -> None:
    setting = Setting(mail_dir=None, folder=tmp_path, source_url=named, is_here=is_here)
    with scripted_api() as api, TaskFlow(api.url, trust_env=False) as client:
        api.script(task(), task(status=status, state=status))
        assert choose_source(client, HERE, setting, until=time.monotonic() + 30) == chosen
        assert len(api.asked) == asked
        assert all(one.body is None or one.body["payload"]["source"]["url"] == HERE for one in api.asked)


def test_a_mail_is_found_by_its_id_and_the_newest_first(tmp_path: Path) -> None:
    for name, message_id in (("1", "<a@x>"), ("2", "<b@x>"), ("3", "<a@x>")):
        (tmp_path / f"{name}.eml").write_bytes(f"Message-ID: {message_id}\r\nSubject: {name}\r\n\r\nText\r\n".encode())
    (tmp_path / "4.eml.unfinished").write_bytes(b"Message-ID: <a@x>\r\n")
    found = find_mail(tmp_path, "<a@x>")
    assert found is not None
    assert (found[0].name, found[1]["Subject"]) == ("3.eml", "3")
    assert find_mail(tmp_path, "<c@x>") is None
    assert find_mail(tmp_path / "nowhere", "<a@x>") is None
