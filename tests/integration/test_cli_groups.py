"""Every group of commands, driven as a user would, against a real platform; most of them in this process."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from cli_person import Person
from waiting import eventually

PASSWORD = "correct horse battery\n"
NOWHERE = "01936f5e-7c1a-7d3e-9c55-0242ac120002"
MAIL = {"to": ["bob@example.com"], "subject": "Hello", "text": "A line."}
LATER = {"type": "EMAIL", "payload": MAIL, "delay_s": 3600}
HOOK = "https://example.com/hook"


@pytest.fixture(scope="module")
def ada(platform: Path, tmp_path_factory: pytest.TempPathFactory) -> Person:
    return Person(platform, tmp_path_factory.mktemp("ada"), f"{uuid4().hex[:8]}@example.com").register()


@pytest.fixture(scope="module")
def boss(platform: Path, tmp_path_factory: pytest.TempPathFactory) -> Person:
    """Return somebody with the role ADMIN."""
    admin = Person(platform, tmp_path_factory.mktemp("boss"), f"{uuid4().hex[:8]}@example.com")
    assert admin.run("admin", "create", admin.email, "--password-stdin", stdin=PASSWORD).code == 0
    assert admin.call("login", admin.email, "--password-stdin", stdin=PASSWORD).code == 0
    return admin


def lines_of(*items: Any) -> str:
    return "\n".join(item if isinstance(item, str) else json.dumps(item) for item in items) + "\n"


def test_a_batch_names_the_lines_that_are_refused_makes_the_others_and_makes_none_again(
    ada: Person, tmp_path: Path
) -> None:
    file = tmp_path / "tasks.jsonl"
    tagged = LATER | {"tags": ["batch"]}
    file.write_text(lines_of(tagged, "", {"type": "NOPE", "payload": {}}, tagged, LATER | {"prioirty": 1}))
    done = ada.call("batch", str(file), "--json")
    assert done.code == 1
    assert (done.json["created"], [refusal["line"] for refusal in done.json["refused"]]) == (2, [3, 5])
    assert "line 3: type: " in done.err
    assert "line 5: prioirty: " in done.err
    again = ada.call("batch", str(file))
    assert (again.code, again.out) == (1, "Created 2 tasks; 2 lines were refused.\n"), "the first answer, once more"
    assert len(ada.call("ls", "--tag", "batch", "--json").json) == 2
    assert ada.call("batch", str(file), "--run", "another", "--json").json["created"] == 2
    assert len(ada.call("ls", "--tag", "batch", "--json").json) == 4


def test_a_batch_shows_on_a_terminal_how_far_it_is(ada: Person) -> None:
    terminal, end = pty.openpty()
    environ = {"PATH": os.environ["PATH"], "XDG_CONFIG_HOME": str(ada.config), "TERM": "xterm", "COLUMNS": "80"}
    with ThreadPoolExecutor() as threads:
        shown = threads.submit(all_shown, terminal)
        done = subprocess.run(
            [sys.executable, "-m", "taskflow_cli", "batch", "-", "--json"],
            cwd=ada.folder,
            env=environ,
            input=lines_of(*[LATER] * 1001).encode(),
            stdout=subprocess.PIPE,
            stderr=end,
            timeout=120,
            check=False,
        )
        os.close(end)
    assert done.returncode == 0, shown.result()
    assert "1001 tasks" in shown.result()
    assert json.loads(done.stdout) == {"created": 1001, "refused": []}


def all_shown(terminal: int) -> str:
    """Return what is written to a terminal until its other end is closed."""
    shown = b""
    with contextlib.suppress(OSError), open(terminal, "rb", buffering=0) as screen:
        while piece := screen.read(4096):
            shown += piece
    return shown.decode()


@pytest.mark.parametrize(
    ("content", "words"),
    [("{", "line 1 is not JSON"), ("[1]", "line 1 is not a JSON object"), (None, "cannot read")],
)
def test_a_file_that_is_none_leaves_with_2(ada: Person, tmp_path: Path, content: str | None, words: str) -> None:
    file = tmp_path / "tasks.jsonl"
    if content is not None:
        file.write_text(content)
    done = ada.call("batch", str(file))
    assert (done.code, done.out) == (2, "")
    assert words in done.err


def test_a_list_shows_what_its_filters_choose(platform: Path, tmp_path: Path) -> None:
    eve = Person(platform, tmp_path, f"{uuid4().hex[:8]}@example.com").register()
    tasks = [
        LATER | {"title": "one", "tags": ["red"], "queue": "low"},
        LATER | {"title": "two", "tags": ["red", "blue"], "dedup_key": "needle"},
        {"type": "REPORT", "payload": {"last": "24h"}, "delay_s": 3600, "title": "three"},
    ]
    assert eve.call("batch", "-", stdin=lines_of(*tasks)).code == 0
    two = next(task["id"] for task in eve.call("ls", "--json").json if task["title"] == "two")
    assert eve.call("cancel", two, "--json").json["status"] == "CANCELED"
    chosen = {
        ("--tag", "red"): ["one", "two"],
        ("--queue", "low"): ["one"],
        ("--type", "REPORT"): ["three"],
        ("--type", "REPORT", "--type", "EMAIL"): ["one", "three", "two"],
        ("--status", "canceled"): ["two"],
        ("--status", "pending", "--status", "canceled"): ["one", "three", "two"],
        ("--search", "needle"): ["two"],
        ("--since", "2020-01-01T00:00:00Z", "--until", "2020-01-02T00:00:00Z"): [],
        ("--since", "2020-01-01T00:00:00Z", "--limit", "3"): ["one", "three", "two"],
        ("--error-code", "nothing"): [],
        ("--schedule", NOWHERE): [],
    }
    for options, titles in chosen.items():
        assert sorted(task["title"] for task in eve.call("ls", *options, "--json").json) == titles, options
    assert [task["id"] for task in eve.call("ls", "--oldest", "--json").json] == sorted(
        task["id"] for task in eve.call("ls", "--json").json
    )
    assert [line.split()[-1] for line in eve.call("ls", "--tag", "blue").out.splitlines()] == ["TITLE", "two"]


def test_a_task_is_shown_its_lines_are_read_and_it_is_canceled(ada: Person) -> None:
    task_id = ada.submit("REPORT", {"last": "24h", "format": ["csv"]}, "--title", "rows", "--tag", "x")
    assert ada.call("watch", task_id, "--json").json["status"] == "COMPLETED"
    shown = ada.call("show", task_id)
    assert (shown.code, "rows" in shown.out, "COMPLETED" in shown.out, "payload" in shown.out) == (0, True, True, True)
    assert ada.call("show", task_id, "--json").json["tags"] == ["x"]
    for options in ((), ("-f",)):
        read = ada.call("logs", task_id, "--json", *options)
        assert (read.code, [json.loads(line)["attempt"] for line in read.out.splitlines()].count(2)) == (0, 0)
    waiting = ada.submit("EMAIL", MAIL, "--delay", "3600")
    canceled = ada.call("cancel", waiting)
    assert (canceled.code, canceled.out) == (0, f"EMAIL {waiting} is CANCELED.\n")
    again = ada.call("cancel", waiting)
    assert (again.code, "illegal_transition" in again.err) == (1, True)


def test_a_webhook_lives_from_add_to_rm(ada: Person) -> None:
    made = ada.call("webhooks", "add", HOOK, "--kind", "task.completed", "--queue", "low", "--json").json
    assert (made["secret"][:6], made["queues"]) == ("whsec_", ["low"])
    row = [line.split() for line in ada.call("webhooks", "ls").out.splitlines()][1]
    assert row == [made["id"], "open", "task.completed", HOOK]
    assert made["secret"] not in ada.call("webhooks", "ls", "--json").out
    assert ada.call("webhooks", "disable", made["id"]).out.endswith("is disabled.\n")
    assert ada.call("webhooks", "enable", made["id"], "--json").json["disabled"] is False
    assert ada.call("webhooks", "rotate", made["id"], "--json").json["secret"] != made["secret"]
    delivery = ada.call("webhooks", "test", made["id"], "--json").json
    assert delivery["kind"] == "webhook.test"
    assert [one["id"] for one in ada.call("webhooks", "deliveries", made["id"], "--json").json] == [delivery["id"]]
    assert delivery["id"] in ada.call("webhooks", "deliveries", made["id"]).out
    assert ada.call("webhooks", "rm", made["id"], "--json").json == {"deleted": made["id"]}
    assert ada.call("webhooks", "rm", made["id"]).code == 1
    inside = ada.call("webhooks", "add", "https://10.0.0.1/", "--kind", "task.failed")
    assert (inside.code, "url: " in inside.err) == (1, True)


def test_workers_and_figures_are_shown(ada: Person, boss: Person) -> None:
    (worker,) = boss.call("workers", "ls", "--json").json
    assert [line.split()[:2] for line in boss.call("workers", "ls").out.splitlines()][1] == [worker["id"], "running"]
    assert boss.call("workers", "show", worker["id"]).out.startswith(f"{worker['id']} is running; ")
    assert boss.call("workers", "show", worker["id"], "--json").json["slots"] == worker["slots"]
    assert ada.call("workers", "ls").code == 1
    ada.submit("EMAIL", MAIL, "--delay", "3600")
    figures = ada.call("stats", "--json").json
    assert figures["totals"]["PENDING"] >= 1
    assert ada.call("stats", "--hours", "24").out.startswith("from ")
    assert ada.call("stats", "--hours", "25").code == 2


def test_an_admin_lists_promotes_disables_and_enables_accounts(boss: Person, platform: Path, tmp_path: Path) -> None:
    eve = Person(platform, tmp_path, f"{uuid4().hex[:8]}@example.com").register()
    assert boss.call("admin", "promote", eve.email, "operator", "--json").json["role"] == "OPERATOR"
    assert eve.email in boss.call("admin", "users", "--role", "operator").out
    assert boss.call("admin", "disable", eve.email).out == f"{eve.email} is OPERATOR and disabled.\n"
    assert eve.call("whoami").code == 1
    assert [user["email"] for user in boss.call("admin", "users", "--disabled", "--json").json] == [eve.email]
    assert boss.call("admin", "enable", eve.email).code == 0
    kinds = {event["kind"] for event in boss.call("admin", "security-events", "--json").json}
    assert {"role.changed", "user.disabled", "user.enabled"} <= kinds
    assert boss.call("admin", "security-events", "--kind", "role.changed").code == 0
    unknown = boss.call("admin", "disable", "nobody@example.com")
    assert (unknown.code, "no account has the address" in unknown.err) == (2, True)
    assert eve.call("admin", "users").code == 1


@pytest.mark.parametrize(
    "command",
    [
        "ls",
        "ls --all",
        "dead-letters ls",
        "schedules ls",
        "queues ls",
        "workers ls",
        "webhooks ls",
        "keys ls",
        "sessions ls",
        "admin users",
        "admin security-events",
        "stats",
        "whoami",
        "profile ls",
    ],
)
def test_with_json_the_output_is_one_json_document_and_nothing_else(boss: Person, command: str) -> None:
    done = boss.call(*command.split(), "--json")
    assert (done.code, done.err) == (0, "")
    assert isinstance(done.json, dict | list)


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        pytest.param(0, ["ls"], id="0 ok"),
        pytest.param(1, ["show", NOWHERE], id="1 the API said no"),
        pytest.param(2, ["show", "7"], id="2 wrong usage"),
        pytest.param(2, ["ls", "--since", "yesterday"], id="2 a time that is none"),
        pytest.param(2, ["ls", "--api", "http://127.0.0.1:1"], id="2 nobody there"),
        pytest.param(2, ["submit", "EMAIL", "--payload", "@nothing.json"], id="2 no such file"),
    ],
)
def test_a_command_leaves_with_the_code_that_is_documented(ada: Person, code: int, arguments: list[str]) -> None:
    done = ada.call(*arguments)
    assert done.code == code, done.err
    assert (done.err == "") == (code == 0)
    assert "Traceback" not in done.err


# Whoever runs the tests in the background lets them, and what they start, ignore Ctrl-C.
AT_A_TERMINAL = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from taskflow_cli.main import main
main()
"""


def test_ctrl_c_leaves_with_130_and_the_task_goes_on(ada: Person, tmp_path: Path) -> None:
    task_id = ada.submit("EMAIL", MAIL, "--delay", "3600")
    said = tmp_path / "stderr"
    with said.open("wb") as stderr:
        watching = subprocess.Popen(
            [sys.executable, "-c", AT_A_TERMINAL, "watch", task_id],
            cwd=ada.folder,
            env={"PATH": os.environ["PATH"], "XDG_CONFIG_HOME": str(ada.config)},
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )
    try:
        eventually(lambda: said.stat().st_size > 0, timeout=60)
        watching.send_signal(signal.SIGINT)
        assert watching.wait(timeout=30) == 130, said.read_text()
    finally:
        watching.kill()
        watching.wait(timeout=10)
    assert "Traceback" not in said.read_text()
    assert ada.call("show", task_id, "--json").json["state"] == "SCHEDULED"
