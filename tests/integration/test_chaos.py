"""`taskflow chaos` as a user runs it: a platform of its own, real kills and freezes, and the verdict."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from waiting import eventually

RULES = 22


class Chaos:
    """One run in a process of its own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.said = folder.with_suffix(".said")
        self.found = folder.with_suffix(".found")
        command = [sys.executable, "-m", "taskflow_cli", "chaos", "--json", "--data-dir", str(folder), *arguments]
        with self.said.open("wb") as said, self.found.open("wb") as found:
            self.process = subprocess.Popen(command, stdout=found, stderr=said)

    def ends(self, timeout: float) -> dict[str, Any]:
        """Wait for its end and return what it found."""
        self.process.wait(timeout=timeout)
        document: dict[str, Any] = json.loads(self.found.read_text() or "{}")
        return document


@contextmanager
def chaos(folder: Path, *arguments: str) -> Iterator[Chaos]:
    """Run it; told to stop when the block is left early."""
    run = Chaos(folder, *arguments)
    try:
        yield run
    finally:
        if run.process.poll() is None:
            run.process.send_signal(signal.SIGTERM)
            run.process.wait(timeout=120)


def processes_in(folder: Path) -> list[str]:
    """Return the command lines of the processes that work in the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink().is_relative_to(folder):
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:  # it has ended, or is another account's
            continue
    return found


def test_twenty_seconds_of_faults_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    with chaos(tmp_path / "data", "--seconds", "20", "--seed", "11", "--clients", "4") as run:
        found = run.ends(timeout=400)
        said = run.said.read_text()
    assert run.process.returncode == 0, said + json.dumps(found, indent=2)
    assert (found["lost"], found["doubled"], found["unfinished"], found["broken"]) == ([], [], [], [])
    assert found["accepted"] == sum(found["statuses"].values()) - found["unanswered_stored"] > 0
    assert (found["audit"]["clean"], found["broken_live"]) == (True, {})
    assert [check["violations"] for check in found["audit"]["checks"]] == [0] * RULES
    assert len(found["faults"]) > 5
    assert "worker-1 is" in said


def test_ctrl_c_stops_the_faults_judges_what_is_there_and_leaves_no_process(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with chaos(folder, "--seconds", "600", "--seed", "12") as run:
        eventually(lambda: " is killed" in run.said.read_text(), timeout=120)
        assert any("taskflow_worker" in command for command in processes_in(folder))
        run.process.send_signal(signal.SIGINT)
        found = run.ends(timeout=120)
    assert run.process.returncode == 130, run.said.read_text() + json.dumps(found, indent=2)
    assert found["interrupted"]
    assert found["audit"]["clean"]
    assert processes_in(folder) == []
    assert not (folder / "platform.json").exists()


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "dear").touch()
    with chaos(tmp_path) as run:
        run.ends(timeout=60)
    assert run.process.returncode == 2
    assert f"{tmp_path} is not empty" in run.said.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["dear"]
