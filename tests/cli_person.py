"""Somebody at a terminal: runs `taskflow` as a process of its own, in the folder of a platform."""

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from taskflow_cli.main import main


@dataclass
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Person:
    """Somebody with a configuration folder of their own, in the folder of the platform."""

    folder: Path
    config: Path
    email: str

    @property
    def credentials(self) -> Path:
        return self.config / "taskflow/credentials.json"

    def run(self, *arguments: str, stdin: str = "", **environ: str) -> Done:
        kept = {"PATH": os.environ["PATH"], "XDG_CONFIG_HOME": str(self.config), "COLUMNS": "80", **environ}
        done = subprocess.run(
            [sys.executable, "-m", "taskflow_cli", *arguments],
            cwd=self.folder,
            env=kept,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def call(self, *arguments: str, stdin: str = "") -> Done:
        """Do what `run` does in this process: many commands cost one start of Python."""
        out, err = (io.TextIOWrapper(io.BytesIO(), write_through=True) for _ in range(2))
        environ = {"PATH": os.environ["PATH"], "XDG_CONFIG_HOME": str(self.config), "COLUMNS": "80"}
        code = 0
        with (
            patch.dict(os.environ, environ, clear=True),
            contextlib.chdir(self.folder),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            patch("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()))),
        ):
            try:
                main(arguments)
            except SystemExit as left:
                code = left.code if isinstance(left.code, int) else int(left.code is not None)
        written = [stream.buffer.getvalue().decode() for stream in (out, err)]
        return Done(code, *written)

    def register(self) -> "Person":
        done = self.run("register", self.email, "--password-stdin", stdin="correct horse battery\n")
        assert done.code == 0, done.err
        return self

    def submit(self, kind: str, payload: dict[str, Any], *options: str) -> str:
        done = self.run("submit", kind, "--payload", "-", "--json", *options, stdin=json.dumps(payload))
        assert done.code == 0, done.err
        task_id: str = done.json["id"]
        return task_id
