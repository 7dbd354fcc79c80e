"""The commands that run the platform, as real processes."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from taskflow_core import schema
from taskflow_core.database import plain_url
from taskflow_core.settings import Settings
from waiting import eventually


def taskflow(*arguments: str, env: dict[str, str], cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "taskflow_cli", *arguments],
        env={"PATH": os.environ["PATH"], **env},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("command", "event"),
    [("api", "Application startup complete"), ("worker", "worker.started"), ("scheduler", "scheduler.started")],
)
def test_a_process_command_is_the_process_and_stops_on_its_signal(
    command: str, event: str, env: dict[str, str], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "taskflow_cli", command],
            env={"PATH": os.environ["PATH"], "TASKFLOW_API_PORT": "0", **env},
            stdout=output,
            stderr=output,
        )
    try:
        eventually(lambda: event in log.read_text() or process.poll() is not None, timeout=60)
        assert event in log.read_text(), log.read_text()
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        assert not children.exists() or children.read_text() == "", "nothing stands between the signal and the process"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0, log.read_text()
    finally:
        process.kill()
        process.wait(timeout=10)


@pytest.mark.parametrize("command", ["api", "worker", "scheduler", "migrate"])
def test_a_process_without_its_settings_names_them_and_leaves_with_2(command: str, tmp_path: Path) -> None:
    done = taskflow(command, env={}, cwd=tmp_path)
    assert done.returncode == 2
    assert "TASKFLOW_DATABASE_URL is missing" in done.stderr


def test_migrating_says_from_where_to_where(settings: Settings, env: dict[str, str], tmp_path: Path) -> None:
    schema.migrate(settings, "base")
    check = taskflow("migrate", "--check", env=env, cwd=tmp_path)
    assert check.returncode == 1
    assert check.stdout == f"The schema is at no revision; this version needs {schema.head()}. Run: taskflow migrate\n"
    migrated = taskflow("migrate", env=env, cwd=tmp_path)
    assert (migrated.returncode, migrated.stdout) == (0, f"Migrated the schema from no revision to {schema.head()}.\n")
    again = taskflow("migrate", "--check", "--json", env=env, cwd=tmp_path)
    assert again.returncode == 0
    assert json.loads(again.stdout) == {"from": schema.head(), "to": schema.head(), "needed": schema.head()}


def test_the_version_before_leaves_a_newer_schema_alone_and_works_on_it(
    settings: Settings, env: dict[str, str], tmp_path: Path
) -> None:
    with psycopg.connect(plain_url(settings.database_url), autocommit=True) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'from_the_future'")
    rolled_back = taskflow("migrate", env=env, cwd=tmp_path)
    assert rolled_back.returncode == 0
    assert rolled_back.stdout.startswith("The schema is at from_the_future, newer than")


def test_a_database_that_is_away_is_the_environments_fault_and_its_password_is_not_shown(
    env: dict[str, str], tmp_path: Path
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    away = env | {"TASKFLOW_DATABASE_URL": f"postgresql://taskflow:hidden-word@127.0.0.1:{port}/taskflow"}
    done = taskflow("migrate", env=away, cwd=tmp_path)
    assert done.returncode == 2
    assert "cannot use the database that TASKFLOW_DATABASE_URL names" in done.stderr
    assert "Traceback" not in done.stderr
    assert "hidden-word" not in done.stderr


@pytest.mark.parametrize("command", [["up"], ["demo", "--embedded"]])
def test_without_the_extra_the_command_says_how_to_install_it(command: list[str], tmp_path: Path) -> None:
    script = f"import sys; sys.modules['aiosmtpd'] = None; from taskflow_cli.main import main; main({command})"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "pip install 'taskflow-platform[embedded]'" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["demo", "--embedded", "--api", "http://127.0.0.1:1"], "exclude each other"),
        (["demo", "--data-dir", "x"], "needs --embedded"),
        (["up", "--port", "70000"], "less than or equal to 65535"),
    ],
)
def test_options_that_do_not_fit_are_refused(arguments: list[str], words: str, tmp_path: Path) -> None:
    done = taskflow(*arguments, env={}, cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
