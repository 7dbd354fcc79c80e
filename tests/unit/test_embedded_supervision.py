"""What the embedded platform decides without any process: lines, backoff, environments, leftovers."""

import os
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskflow_cli.embedded import children, guard, postgres
from taskflow_cli.embedded.keeper import BACKOFF_CAP_S, backoff, ending
from taskflow_cli.embedded.lines import MAX_LINE, Lines
from taskflow_cli.embedded.process import unprivileged

SITE = children.Site(
    folder=Path("/data"),
    host="0.0.0.0",
    api_port=8000,
    smtp_port=2525,
    worker_port=8001,
    scheduler_port=8002,
    database_url="postgresql://taskflow:pw@127.0.0.1:5432/taskflow",
    redis_url="redis://:pw@127.0.0.1:6379/0",
    jwt_secret="signing-key",
    webhook_key="webhook-key",
    slots=4,
    queues="default",
    began=datetime(2026, 1, 1, tzinfo=UTC),
)


@given(st.lists(st.binary(max_size=50), max_size=20))
def test_lines_come_out_whole_however_the_stream_is_cut(chunks: list[bytes]) -> None:
    stream = b"".join(chunks)
    at_once, piecewise = Lines(), Lines()
    expected = at_once.feed(stream) + at_once.end()
    assert [line for chunk in chunks for line in piecewise.feed(chunk)] + piecewise.end() == expected


def test_a_line_without_end_is_cut_and_takes_no_memory() -> None:
    lines = Lines()
    for _ in range(1000):
        assert lines.feed(b"x" * 10_000) == []
    assert lines.feed(b"\nnext\n") == ["x" * MAX_LINE + " [cut]", "next"]


def test_a_line_cannot_steer_the_terminal() -> None:
    assert Lines().feed(b"\x1b[2Jcleared\r\n") == ["\ufffd[2Jcleared"]


@given(st.integers(min_value=1, max_value=10_000), st.floats(min_value=0, max_value=1, exclude_max=True))
def test_backoff_is_positive_and_capped(failures: int, chance: float) -> None:
    assert 0 < backoff(failures, chance=chance) <= BACKOFF_CAP_S


def test_backoff_doubles() -> None:
    assert [backoff(failures, chance=0) for failures in (1, 2, 3, 10)] == [0.25, 0.5, 1.0, 15.0]


@pytest.mark.parametrize(("status", "words"), [(-9, "was ended by SIGKILL"), (3, "ended with status 3")])
def test_an_end_is_told_in_words(status: int, words: str) -> None:
    assert ending(status) == words


def test_the_guard_forgets_children_that_ended() -> None:
    assert guard.follow(["+10 9\n", "+11 2\n", "-10\n", "+12 9\n"]) == {11: 2, 12: 9}


def test_only_the_api_knows_the_signing_key_and_only_who_handles_webhooks_theirs() -> None:
    environments = {child.name: child.launch.env for child in children.app_children(SITE)}
    assert list(environments) == ["mail", "api", "scheduler", "worker"]
    assert [name for name, env in environments.items() if "signing-key" in env.values()] == ["api"]
    assert [name for name, env in environments.items() if "webhook-key" in env.values()] == ["api", "scheduler"]
    assert "TASKFLOW_DATABASE_URL" not in environments["mail"]
    assert environments["worker"]["TASKFLOW_SMTP_URL"] == "smtp://127.0.0.1:2525"


def test_no_secret_is_on_a_command_line() -> None:
    words = [word for child in children.app_children(SITE) for word in child.launch.command]
    assert not [word for word in words if "pw" in word or "signing-key" in word or "webhook-key" in word]


def test_users_settings_pass_but_not_their_addresses_and_secrets() -> None:
    environ = {
        "TASKFLOW_LOG_LEVEL": "debug",
        "TASKFLOW_DATABASE_URL": "postgresql://elsewhere/db",
        "TASKFLOW_JWT_PREVIOUS_SECRET": "old",
        "AWS_PROFILE": "work",
    }
    assert children.tunables(environ) == {"TASKFLOW_LOG_LEVEL": "debug"}


def test_a_platform_open_to_the_network_is_reached_on_this_machine() -> None:
    assert SITE.api_url == "http://127.0.0.1:8000"


def test_a_pid_file_that_names_another_program_is_removed(tmp_path: Path) -> None:
    (tmp_path / "postmaster.pid").write_text(f"{os.getpid()}\n{tmp_path}\n")
    postgres.end_leftover(tmp_path)
    assert not (tmp_path / "postmaster.pid").exists()


def test_a_data_folder_that_postgresql_may_not_enter_points_to_one_elsewhere(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    elsewhere = Path(tempfile.mkdtemp())  # pytest's own folders are closed to others
    elsewhere.chmod(0o755)
    home = postgres.home_for(closed, elsewhere=elsewhere)
    assert home == closed if unprivileged() is None else home.parent == elsewhere
    moved = closed.rename(tmp_path / "moved")
    assert postgres.home_for(moved, elsewhere=elsewhere) == (moved if unprivileged() is None else home)
    shutil.rmtree(elsewhere)
