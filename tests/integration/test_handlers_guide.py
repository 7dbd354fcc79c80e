"""docs/handlers.md keeps its word: its package is built, installed, tested and run as it stands there."""

import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest

from children import ROOT, Children, children
from taskflow_cli.embedded.ports import free_port
from taskflow_core.clock import utc_now
from taskflow_core.database import plain_url
from taskflow_core.settings import Settings
from waiting import eventually

GUIDE = ROOT / "docs" / "handlers.md"
FILE = re.compile(r"^```\w+ (shop-tasks/\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TYPES = {"INVOICES", "CHARGE", "RESTOCK"}


@dataclass
class Shop:
    """The guide's package on a platform: a client of its API, and its database."""

    http: httpx2.Client
    database_url: str

    def submit(self, type_: str, payload: dict[str, Any], **fields: Any) -> httpx2.Response:
        return self.http.post("/api/v1/tasks", json={"type": type_, "payload": payload, **fields})

    def run(self, type_: str, payload: dict[str, Any]) -> dict[str, Any]:
        made = self.submit(type_, payload)
        assert made.status_code == 201, made.text

        def ended() -> dict[str, Any] | None:
            task: dict[str, Any] = self.http.get(made.headers["location"]).json()
            return task if task["finished_at"] else None

        task = eventually(ended)
        assert task is not None
        return task


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the files of the guide to a folder and return the package's."""
    folder = tmp_path_factory.mktemp("guide")
    for name, text in FILE.findall(GUIDE.read_text()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder / "shop-tasks"


@pytest.fixture(scope="module")
def site(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the package's wheel and unpack it, which is what installing it means, into a folder for PYTHONPATH."""
    built = tmp_path_factory.mktemp("built")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(built)]
    subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=120)
    (wheel,) = built.glob("shop_tasks-1.0-*.whl")
    target = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


@pytest.fixture(scope="module")
def shop(
    module_settings: Settings, source: Path, site: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shop]:
    port, url = free_port(), plain_url(module_settings.database_url)
    env = {
        "TASKFLOW_DATABASE_URL": module_settings.database_url.get_secret_value(),
        "TASKFLOW_REDIS_URL": module_settings.redis_url.get_secret_value(),
        "TASKFLOW_JWT_SECRET": "s" * 48,
        "PYTHONPATH": str(site),
    }
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute((source / "tables.sql").read_text())
    with (
        children(env, tmp_path_factory.mktemp("logs")) as nursery,
        httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as http,
    ):
        start(nursery, http, port)
        yield Shop(http, url)


def start(nursery: Children, http: httpx2.Client, port: int) -> None:
    """Start an API, a worker and a scheduler, and log a user in."""
    api = nursery.start("taskflow_api", api_port=str(port), bcrypt_rounds="4")
    nursery.worker()
    nursery.scheduler()

    def is_ready() -> bool:
        assert api.process.poll() is None, api.log.read_text()
        try:
            return http.get("/health/ready").status_code == 200
        except httpx2.TransportError:
            return False

    eventually(is_ready)
    account = {"email": "ada@example.com", "password": "correct horse battery"}
    assert http.post("/api/v1/auth/register", json=account).status_code == 201
    token = http.post("/api/v1/auth/login", json=account).json()["access_token"]
    http.headers["Authorization"] = f"Bearer {token}"


def test_the_guides_own_tests_pass(source: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_shop_tasks.py"],
        cwd=source,
        env={**os.environ, "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


def test_the_api_knows_the_types_and_checks_their_payloads(shop: Shop) -> None:
    kinds = {kind["name"]: kind for kind in shop.http.get("/api/v1/task-types").json()["items"]}
    assert set(kinds) >= TYPES
    assert kinds["INVOICES"]["summary"] == "Write the invoices of many customers."
    assert kinds["CHARGE"]["timeout_s"] == 60
    refused = shop.submit("CHARGE", {"customer": "Ada", "cents": 0})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "payload.cents")


def test_a_plain_function_completes_with_its_result(shop: Shop) -> None:
    task = shop.run("INVOICES", {"customers": ["Ada", "Bob"]})
    assert (task["status"], task["result"], task["attempt"]) == ("COMPLETED", {"written": 2}, 1)


def test_a_busy_gateway_is_asked_again_under_the_same_key(shop: Shop) -> None:
    task = shop.run("CHARGE", {"customer": "Ada", "cents": 1250})
    assert (task["status"], task["attempt"]) == ("COMPLETED", 2)
    assert task["result"]["reference"] == f"Ada-1250-{task['id']}"


def test_a_declined_card_fails_at_once_with_the_code_of_the_guide(shop: Shop) -> None:
    task = shop.run("CHARGE", {"customer": "Mallory", "cents": 1})
    assert (task["status"], task["attempt"], task["error"]["code"]) == ("FAILED", 1, "card_declined")


def test_a_snoozed_charge_waits_for_its_time_and_costs_no_attempt(shop: Shop) -> None:
    not_before = utc_now() + timedelta(seconds=1)
    task = shop.run("CHARGE", {"customer": "Bob", "cents": 5, "not_before": not_before.isoformat()})
    assert (task["status"], task["attempt"]) == ("COMPLETED", 2)
    assert task["result"]["charged_at"] >= not_before.isoformat(timespec="seconds")[:19]
    outcomes = shop.http.get(f"/api/v1/tasks/{task['id']}/attempts").json()["items"]
    assert [attempt["outcome"] for attempt in outcomes] == ["snoozed", "retried", "completed"]


def test_goods_are_counted_once_for_each_task(shop: Shop) -> None:
    for _ in range(3):
        task = shop.run("RESTOCK", {"sku": "tea", "pieces": 5})
        assert (task["status"], task["result"]) == ("COMPLETED", None)
    with psycopg.connect(shop.database_url) as connection:
        assert connection.execute("SELECT sku, pieces FROM shop_stock").fetchall() == [("tea", 15)]
