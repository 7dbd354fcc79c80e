"""docker compose brings a whole platform up: it works, is closed, survives a killed worker, ends well, and is gone.

The tests run in this order: the last ones stop the stack and take it away.
"""

import os
import re
import subprocess
import sys
from email import message_from_string
from pathlib import Path
from typing import Any

import pytest
import yaml

from compose.stack import ROOT, Refused, Stack, docker, logs, make_secrets, service_of
from taskflow_client.models import Task
from taskflow_client.sync import TaskFlow
from waiting import eventually

RECORDS = "http://demo-source:8080/products"
OURS = ("api", "worker", "scheduler", "demo-source")
DEMO_S = 120
MANY = 40  # more than the slots of two workers
PROBE = """
import json, pathlib
lines = pathlib.Path("/proc/1/status").read_text().splitlines()
status = dict(line.split(":\\t", 1) for line in lines if ":\\t" in line)
def refusal(folder):
    try:
        (pathlib.Path(folder) / "probe").write_text("")
    except OSError as error:
        return error.strerror
print(json.dumps({"status": status, "writes": {folder: refusal(folder) for folder in %r}}))
"""
CLOSED = ["/", "/etc", "/opt/taskflow", "/opt/taskflow/bin", "/usr/local/bin", "/usr", "/home"]
QUERY = """
import sys, urllib.request
print(urllib.request.urlopen("http://prometheus:9090/api/v1/%s", timeout=10).read().decode())
"""


def sync_of(url: str, collection: str) -> dict[str, Any]:
    pages = {"kind": "next_field", "path": "next"}
    source = {"url": url, "records_path": "items", "pagination": pages}
    return {"type": "SYNC", "payload": {"source": source, "key": "sku", "target": {"collection": collection}}}


def test_without_secrets_compose_refuses_and_names_make_env(engine: None, tmp_path: Path) -> None:
    empty = tmp_path / ".env"
    empty.touch()
    with pytest.raises(Refused, match=r"_PASSWORD is missing a value: is not set, run make env"):
        Stack("taskflow-test-refused", empty).up()
    make_secrets(tmp_path)
    assert "taskflow-test-refused" in Stack("taskflow-test-refused", empty).compose("config")


def test_everything_comes_up_healthy(stack: Stack) -> None:
    states = {service_of(one): one["State"] for one in stack.containers()}
    migrated = states.pop("migrate")
    assert (migrated["Status"], migrated["ExitCode"]) == ("exited", 0)
    assert states.keys() == {"postgres", "redis", "mail", *OURS}
    assert {name: state["Health"]["Status"] for name, state in states.items()} == dict.fromkeys(states, "healthy")


def test_nothing_is_published_but_the_api_on_this_machine(stack: Stack) -> None:
    published = [
        (service_of(one), inside, place["HostIp"], place["HostPort"])
        for one in stack.containers()
        for inside, places in one["NetworkSettings"]["Ports"].items()
        for place in places or []
    ]
    assert published == [("api", "8000/tcp", "127.0.0.1", str(stack.api_port))]


@pytest.mark.parametrize("service", OURS)
def test_a_container_can_do_nothing_but_its_work(stack: Stack, service: str) -> None:
    found = stack.python(service, PROBE % [*CLOSED, "/tmp"], root=True)  # noqa: S108 - the container's
    assert found["writes"] == {**dict.fromkeys(CLOSED, "Read-only file system"), "/tmp": None}  # noqa: S108 - as above
    status = found["status"]
    assert set(status["Uid"].split()) == {"65532"}
    assert {int(status[name], 16) for name in ("CapPrm", "CapEff", "CapBnd")} == {0}
    assert status["NoNewPrivs"] == "1"


def test_the_demo_passes_and_its_mail_is_in_the_catcher(stack: Stack, tmp_path: Path) -> None:
    taskflow = Path(sys.executable).parent / "taskflow"
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    command = [str(taskflow), "demo", "--api", stack.url]
    done = subprocess.run(
        command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=DEMO_S, check=False, encoding="utf-8"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"The workers pull records from {RECORDS}." in done.stdout
    recipient = re.findall(r"Registered (\S+) at", done.stdout)[0]
    mails = stack.compose("exec", "-T", "mail", "sh", "-c", "cat /tmp/mail/new/*")
    assert message_from_string(mails)["To"] == recipient


def test_a_sync_reaches_nothing_else_of_the_stack(user: TaskFlow) -> None:
    hosts = ("postgres:5432", "redis:6379", "api:8000", "scheduler:8001", "mail:1025", "host.docker.internal:80")
    made = user.tasks.batch([sync_of(f"http://{host}/", "closed") for host in hosts])
    assert made.created == len(hosts)
    eventually(lambda: all(task.has_ended for task in tasks_of(user)), timeout=60)
    refused = {str(task.payload["source"]["url"]): (task.error or {}).get("code") for task in tasks_of(user)}
    assert refused == {f"http://{host}/": "address_refused" for host in hosts}


def test_a_worker_killed_in_its_work_loses_nothing(stack: Stack, user: TaskFlow) -> None:
    stack.up("--scale", "worker=2")
    made = user.tasks.batch([sync_of(RECORDS, f"killed-{number}") for number in range(MANY)])
    assert made.created == MANY
    eventually(lambda: sum(task.status == "RUNNING" for task in tasks_of(user)) > MANY / 2)
    victim = stack.containers("worker")[0]["Id"]
    docker("kill", "--signal", "KILL", victim)
    eventually(lambda: all(task.status == "COMPLETED" for task in tasks_of(user)), timeout=120)
    tasks = tasks_of(user)
    assert len(tasks) == MANY
    assert {1} < {task.attempt for task in tasks}, "the killed worker held none of them"


def tasks_of(user: TaskFlow) -> list[Task]:
    return list(user.tasks.list())


def test_prometheus_scrapes_every_process_by_the_rules_of_the_chart(stack: Stack) -> None:
    stack.up("--scale", "worker=2")  # the killed one, too
    stack.up("prometheus", profile="monitoring")

    def up() -> dict[str, list[str]]:
        jobs: dict[str, list[str]] = {}
        for series in stack.python("api", QUERY % "query?query=up")["data"]["result"]:
            jobs.setdefault(series["metric"]["job"], []).append(series["value"][1])
        return jobs

    wanted = {"taskflow-api": ["1"], "taskflow-worker": ["1", "1"], "taskflow-scheduler": ["1"]}
    eventually(lambda: up() == wanted, timeout=60)
    files = (ROOT / "charts" / "taskflow" / "files" / "monitoring").glob("*.yaml")
    shipped = {group["name"] for file in files for group in yaml.safe_load(file.read_text())["groups"]}
    loaded = stack.python("api", QUERY % "rules")["data"]["groups"]
    assert {group["name"] for group in loaded} == shipped
    assert shipped
    assert [rule["name"] for group in loaded for rule in group["rules"] if rule["health"] == "err"] == []


@pytest.mark.parametrize(
    ("service", "last_word"),
    [
        ("api", "Finished server process"),
        ("worker", "worker.stopped"),
        ("scheduler", "scheduler.stopped"),
        ("demo-source", ""),
    ],
)
def test_a_stopped_container_ends_well(stack: Stack, service: str, last_word: str) -> None:
    container = stack.containers(service)[0]["Id"]
    docker("stop", "--time", "50", container, timeout=90)
    (ended,) = (one for one in stack.containers(service) if one["Id"] == container)
    assert ended["State"]["ExitCode"] == 0, logs(container)
    assert last_word in "".join(logs(container).splitlines()[-1:])


def test_down_leaves_nothing(stack: Stack) -> None:
    assert stack.left()
    stack.down()
    assert stack.left() == []
