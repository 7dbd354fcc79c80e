"""An embedded platform for the time of the demo: `taskflow up` as a child, on free ports."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from taskflow_cli.embedded.process import Launch, command_line
from taskflow_cli.failures import DeadlinePassed, Failure
from taskflow_cli.location import read_platform

START_S = 120.0
STOP_S = 60.0
POLL_S = 0.05
LAST_LINES = 12


@contextmanager
def embedded_platform(data_dir: Path | None) -> Iterator[dict[str, Any]]:
    """Run a platform until the block ends and yield what its platform.json says; without a folder, in a temporary one.

    Raises:
        Failure: it ended before it was ready; its last lines are in the details.
        DeadlinePassed: it was not ready within 120 s.
    """
    signal.signal(signal.SIGTERM, _leave)  # so that everything below is undone on that signal too
    if data_dir is not None:
        data_dir.mkdir(parents=True, exist_ok=True)
        with _running(data_dir) as state:
            yield state
        return
    with tempfile.TemporaryDirectory(prefix="taskflow-demo-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)  # started by root, PostgreSQL runs as another account, which must pass through
        with _running(Path(folder)) as state:
            yield state


@contextmanager
def _running(folder: Path) -> Iterator[dict[str, Any]]:
    command = (sys.executable, "-m", "taskflow_cli", "up", "--data-dir", str(folder), "--port", "0", "--quiet")
    launch = Launch(command, env=os.environ, cwd=Path.cwd(), death_signal=signal.SIGTERM)
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(  # noqa: S603 - this very program
            command_line(launch),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # the terminal's Ctrl-C is for the demo, which stops the platform in order
        )
        try:
            yield _wait(process, folder / "platform.json", output)
        finally:
            _stop(process)


def _wait(process: "subprocess.Popen[bytes]", path: Path, output: Any) -> dict[str, Any]:
    deadline = time.monotonic() + START_S
    while (state := read_platform(path)) is None or state.get("pid") != process.pid:
        if process.poll() is not None:
            output.seek(0)
            lines = output.read().decode(errors="replace").strip().splitlines()
            raise Failure("the embedded platform did not start", details=lines[-LAST_LINES:])
        if time.monotonic() > deadline:
            raise DeadlinePassed(f"the embedded platform was not ready within {START_S:.0f} s")
        time.sleep(POLL_S)
    return state


def _leave(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
