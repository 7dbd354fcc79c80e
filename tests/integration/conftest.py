"""One platform, started by `taskflow up`, for all tests of client commands in a session."""

import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from waiting import eventually


@pytest.fixture(scope="session")
def platform() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="taskflow-cli-"))
    folder.chmod(0o711)  # PostgreSQL's own account must pass through
    state = folder / ".taskflow/platform.json"
    with (folder / "up.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "taskflow_cli", "up", "--port", "0"], cwd=folder, stdout=log, stderr=log
        )
    try:
        eventually(lambda: process.poll() is not None or state.exists(), timeout=120)
        assert process.poll() is None, (folder / "up.log").read_text()
        yield folder
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=90)
    assert code == 0, (folder / "up.log").read_text()
    shutil.rmtree(folder)
