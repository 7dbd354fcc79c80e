"""`taskflow up` with real PostgreSQL and Valkey, and stand-ins for TaskFlow's own processes."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from redis import Redis

import stand_in_platform
from taskflow_cli.embedded.errors import CannotStart
from taskflow_cli.embedded.platform import Platform, PlatformOptions
from taskflow_cli.embedded.process import is_alive
from taskflow_core import schema
from waiting import eventually


class Up:
    """One `taskflow up` in a process of its own."""

    def __init__(self, folder: Path, *children: str, port: int = 0) -> None:
        self.folder = folder
        self.log = folder.with_suffix(f".{len(list(folder.parent.glob('*.log')))}.log")
        command = [sys.executable, stand_in_platform.__file__, str(folder), str(port), *children]
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)

    def text(self) -> str:
        return self.log.read_text()

    def says(self, pattern: str) -> re.Match[str]:
        """Wait until the output matches."""
        eventually(lambda: re.search(pattern, self.text()) or self.process.poll() is not None, timeout=60)
        found = re.search(pattern, self.text())
        assert found, f"{pattern!r} is not in what {self.process.args!r} said:\n{self.text()}"
        return found

    def ready(self) -> dict[str, object]:
        self.says("TaskFlow is ready")
        state: dict[str, object] = json.loads((self.folder / "platform.json").read_text())
        return state

    def ends(self) -> int:
        return self.process.wait(timeout=60)


class Starter:
    """Starts platforms on one data folder, and leaves none behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[Up] = []

    def __call__(self, *children: str, port: int = 0) -> Up:
        up = Up(self.folder, *children, port=port)
        self.started.append(up)
        return up


@pytest.fixture
def start(data_dir: Path) -> Iterator[Starter]:
    """Start platforms on one data folder."""
    starter = Starter(data_dir)
    yield starter
    for up in starter.started:
        if up.process.poll() is None:
            up.process.terminate()
            up.ends()


def descendants(pid: int) -> set[int]:
    """Return all processes below that one."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def test_a_start_brings_up_both_servers_and_tells_where_they_are(start: Starter) -> None:
    up = start("app=steady")
    state = up.ready()
    assert state.keys() == {"api_url", "mail_dir", "smtp_port", "pid", "database_url", "redis_url"}
    assert state["pid"] == up.process.pid
    assert (up.folder / "platform.json").stat().st_mode & 0o777 == 0o600
    with psycopg.connect(str(state["database_url"])) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == (schema.head(),)
    with Redis.from_url(str(state["redis_url"])) as client:
        assert client.ping()


def test_sigterm_stops_everything_in_reverse_order(start: Starter) -> None:
    up = start("first=steady", "second=steady")
    up.ready()
    below = descendants(up.process.pid)
    up.process.send_signal(signal.SIGTERM)
    assert up.ends() == 0
    assert re.findall(r"taskflow  \| (\w+) ended with status 0", up.text()) == ["second", "first", "valkey", "postgres"]
    assert not (up.folder / "platform.json").exists()
    assert not [pid for pid in below if is_alive(pid)]


def test_a_second_start_on_the_same_data_names_the_first_and_exits_2(start: Starter) -> None:
    first = start()
    first.ready()
    second = start()
    assert second.ends() == 2
    said = f"taskflow: the platform on {start.folder} is already running (pid {first.process.pid}).\n"
    assert second.text() == said
    assert first.process.poll() is None


def test_a_taken_port_is_named_with_the_flag_that_changes_it(start: Starter) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        up = start(port=port)
        assert up.ends() == 2
    assert up.text() == (
        f"taskflow: port {port} on 127.0.0.1 is taken by another program; "
        "choose another with --port, or let --port 0 pick a free one.\n"
    )


def test_kill_9_leaves_no_process_behind_and_the_data_stays(start: Starter) -> None:
    up = start("app=parent")
    state = up.ready()
    with psycopg.connect(str(state["database_url"])) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    with Redis.from_url(str(state["redis_url"])) as client:
        client.set("kept", "42")
        client.execute_command("WAITAOF", 1, 0, 5000)
    below = descendants(up.process.pid)
    sleeping = [pid for pid in below if Path(f"/proc/{pid}/comm").read_text() == "sleep\n"]
    assert len(sleeping) == 1  # the grandchild
    up.process.kill()
    up.ends()

    again = start().ready()  # at once: what is left of PostgreSQL may still be closing
    with psycopg.connect(str(again["database_url"])) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)
    with Redis.from_url(str(again["redis_url"])) as client:
        assert client.get("kept") == b"42"
    eventually(lambda: not [pid for pid in below if is_alive(pid)])


def test_a_child_that_falls_is_started_again(start: Starter) -> None:
    up = start("app=steady")
    up.ready()
    first = int(up.says(r"app +\| pid (\d+)").group(1))
    os.kill(first, signal.SIGKILL)
    up.says(r"app was ended by SIGKILL after [\d.]+ s; starting it again in [\d.]+ s \(failure 1 in a row\)")
    second = int(up.says(rf"app +\| pid (?!{first}\b)(\d+)").group(1))
    os.kill(second, signal.SIGKILL)
    up.says(r"failure 2 in a row")


def test_postgresql_that_falls_is_started_again(start: Starter) -> None:
    up = start()
    state = up.ready()
    data = next(up.folder.glob("postgres-*"))
    os.kill(int((data / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
    up.says("postgres was ended by SIGKILL")

    def answers() -> bool:
        try:
            psycopg.connect(str(state["database_url"]), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    eventually(answers)


def test_a_second_interrupt_ends_a_child_that_will_not_stop(start: Starter) -> None:
    up = start("app=stubborn")
    up.ready()
    up.process.send_signal(signal.SIGINT)
    up.says("not yet")
    up.process.send_signal(signal.SIGINT)
    assert up.ends() == 0
    assert "app was ended by SIGKILL" in up.text()


def test_a_part_that_does_not_start_is_shown_with_its_last_words(start: Starter) -> None:
    up = start("app=steady", "bad=broken")
    assert up.ends() == 1
    assert re.search(
        r"taskflow: bad ended with status 1 before it was ready. Its last lines:\n  pid \d+\n  no such luck\n$",
        up.text(),
    )
    # It is told to stop while it starts, too: before it could listen to the signal, that alone ends it.
    assert re.search("app (ended with status 0|was ended by SIGTERM)", up.text())


def test_secrets_are_made_once_for_the_owner_alone(start: Starter) -> None:
    for _ in range(2):
        up = start()
        up.ready()
        up.process.terminate()
        up.ends()
    secrets = {path.name: path for path in (start.folder / "secrets").iterdir()}
    assert secrets.keys() == {"database", "redis", "jwt", "webhooks"}
    assert {path.stat().st_mode & 0o777 for path in secrets.values()} == {0o600}
    assert len(secrets["jwt"].read_text()) == 64  # 48 bytes in base64
    printed = "".join(up.text() for up in start.started)
    assert not [name for name, path in secrets.items() if path.read_text() in printed]


async def test_data_of_a_newer_version_is_refused_in_words(start: Starter) -> None:
    options = PlatformOptions(data_dir=start.folder, api_port=0, quiet=True)
    async with Platform(options, apps=lambda _site: []) as platform:
        assert platform.state is not None
        with psycopg.connect(platform.state.database_url) as connection:
            connection.execute("UPDATE alembic_version SET version_num = 'later'")
    with pytest.raises(CannotStart, match=r"the schema cannot be migrated: the database is at revision later"):
        await Platform(options, apps=lambda _site: []).start()


async def test_a_lost_database_password_is_named(start: Starter) -> None:
    options = PlatformOptions(data_dir=start.folder, api_port=0, quiet=True)
    async with Platform(options, apps=lambda _site: []):
        pass
    (start.folder / "secrets" / "database").unlink()
    with pytest.raises(CannotStart, match=r"its password .*/secrets/database is gone"):
        await Platform(options, apps=lambda _site: []).start()


async def test_a_quiet_platform_logs_to_files(start: Starter, capfd: pytest.CaptureFixture[str]) -> None:
    options = PlatformOptions(data_dir=start.folder, api_port=0, quiet=True)
    apps = {"app": "steady"}
    async with Platform(
        options, apps=lambda site: [stand_in_platform.stand_in(site, name, kind) for name, kind in apps.items()]
    ) as platform:
        assert platform.state is not None
        assert platform.state.api_url.startswith("http://127.0.0.1:")
    logs = {path.stem: path.read_text() for path in (start.folder / "logs").glob("*.log")}
    assert logs.keys() == {"taskflow", "postgres", "valkey", "app"}
    assert "database system is ready" in logs["postgres"]
    assert logs["taskflow"].endswith("postgres ended with status 0\n")
    assert capfd.readouterr() == ("", "")
