"""The embedded platform with TaskFlow's own processes."""

import http.client
import json
from pathlib import Path

import psycopg

from taskflow_cli.embedded.platform import Platform, PlatformOptions


def tells(address: str) -> bool:
    """Whether a process tells its metrics there."""
    connection = http.client.HTTPConnection(address, timeout=30)
    connection.request("GET", "/metrics")
    body = connection.getresponse().read()
    connection.close()
    return b"taskflow_build_info" in body


async def test_all_processes_come_up_serve_and_end_well(data_dir: Path) -> None:
    async with Platform(PlatformOptions(data_dir=data_dir, api_port=0, slots=3, quiet=True)) as platform:
        assert platform.state is not None
        connection = http.client.HTTPConnection(platform.state.api_url.removeprefix("http://"), timeout=30)
        connection.request("GET", "/openapi.json")
        assert connection.getresponse().status == 200
        connection.close()
        groups = json.loads((data_dir / "prometheus.json").read_text())
        assert {group["labels"]["component"]: tells(group["targets"][0]) for group in groups} == {
            "api": True,
            "worker": True,
            "scheduler": True,
        }
        with psycopg.connect(platform.state.database_url) as database:
            assert database.execute("SELECT queues, slots FROM workers").fetchall() == [(["high", "default", "low"], 3)]
    assert not (data_dir / "prometheus.json").exists()
    said = (data_dir / "logs" / "taskflow.log").read_text().splitlines()
    order = ["worker", "scheduler", "api", "mail", "valkey", "postgres"]
    assert said[-6:] == [f"{name} ended with status 0" for name in order]
