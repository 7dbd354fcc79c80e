"""The real Prometheus and its promtool, as installed."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from taskflow_cli.embedded.ports import free_port
from waiting import eventually

RULES = Path(__file__).parents[1] / "charts/taskflow/files/monitoring/rules.yaml"
NAMESPACE = "tests"
STOP_S = 30


def program(name: str) -> str:
    """Return the path of `prometheus` or `promtool`, from PATH or the folder PROMETHEUS_BIN."""
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PROMETHEUS_BIN", ""), os.environ["PATH"]]))
    if found is None:
        pytest.fail(f"{name} is missing: apt-get install prometheus, or PROMETHEUS_BIN=$(hack/prometheus.sh)")
    return found


@dataclass
class Prometheus:
    """A running Prometheus."""

    client: httpx2.Client

    def get(self, path: str, **parameters: str) -> Any:
        """Return the data of an API call; AssertionError with the server's words when it fails."""
        answer = self.client.get(f"/api/v1/{path}", params=parameters)
        body = answer.json()
        assert body["status"] == "success", f"{parameters}: {body.get('error')}"
        return body["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the series of an expression now."""
        found: list[dict[str, Any]] = self.get("query", query=expression)["result"]
        return found

    def is_up(self) -> bool:
        try:
            return self.client.get("/-/ready").status_code == 200
        except httpx2.TransportError:
            return False


@contextmanager
def scraping(ports: Mapping[str, int], folder: Path) -> Iterator[Prometheus]:
    """Run a Prometheus that scrapes these ports each half second, and evaluates the rules as often."""
    rules = folder / "rules.yaml"
    rules.write_text(RULES.read_text().replace("interval: 30s", "interval: 500ms"))
    jobs = [
        {"job_name": name, "static_configs": [{"targets": [f"127.0.0.1:{port}"], "labels": {"namespace": NAMESPACE}}]}
        for name, port in ports.items()
    ]
    every = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
    config = folder / "prometheus.json"
    config.write_text(json.dumps({"global": every, "rule_files": [str(rules)], "scrape_configs": jobs}))
    address, log = f"127.0.0.1:{free_port()}", folder / "prometheus.log"
    command = [program("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, f"--web.listen-address={address}"], stdout=output, stderr=subprocess.STDOUT
        )
    client = httpx2.Client(base_url=f"http://{address}", timeout=10)
    prometheus = Prometheus(client)
    try:
        eventually(lambda: prometheus.is_up() or process.poll() is not None, timeout=60)
        assert process.poll() is None, log.read_text()
        yield prometheus
    finally:
        client.close()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=STOP_S)
