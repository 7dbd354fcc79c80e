"""docker compose, as a user would type it, with a project, secrets and a port of the tests' own."""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from taskflow_cli.embedded.ports import free_port

ROOT = Path(__file__).parents[2]
TAG = os.environ.get("TAG", "dev")
# Every image by the variable that docker-compose.yml takes it from; by default those of `STAND_INS=1 make image`.
IMAGES = {
    "TASKFLOW_IMAGE": f"taskflow/platform:{TAG}",
    "POSTGRES_IMAGE": f"taskflow/test-postgres:{TAG}",
    "REDIS_IMAGE": f"taskflow/test-valkey:{TAG}",
    "MAIL_IMAGE": f"taskflow/test-mail:{TAG}",
    "PROMETHEUS_IMAGE": f"taskflow/test-prometheus:{TAG}",
}
SURROUNDINGS = ("PATH", "HOME", "DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CONTEXT")
CALL_S = 60.0
UP_S = 180.0


class Refused(Exception):
    """docker left with an error; the text is what it said."""


def images() -> dict[str, str]:
    """Return the image of each variable."""
    return {name: os.environ.get(name, image) for name, image in IMAGES.items()}


def surroundings() -> dict[str, str]:
    """Return the environment without the variables that docker-compose.yml would take."""
    return {name: os.environ[name] for name in SURROUNDINGS if name in os.environ}


def docker(*arguments: str, env: dict[str, str] | None = None, timeout: float = CALL_S) -> str:
    """Run docker and return what it printed.

    Raises:
        Refused: with what it said.
    """
    done = subprocess.run(
        ["docker", *arguments],
        env=surroundings() if env is None else env,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if done.returncode:
        raise Refused((done.stderr + done.stdout).strip())
    return done.stdout


def logs(container: str) -> str:
    """Return what a container wrote, to whichever output."""
    command = ["docker", "logs", container]
    done = subprocess.run(
        command,
        env=surroundings(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=CALL_S,
        check=True,
    )
    return done.stdout


def make_secrets(folder: Path) -> str:
    """Run `make env`'s script for a project in `folder` and return what it said."""
    script = folder / "hack" / "env.sh"
    script.parent.mkdir(exist_ok=True)
    shutil.copy(ROOT / "hack" / "env.sh", script)
    return subprocess.run([script], capture_output=True, text=True, timeout=CALL_S, check=True).stdout


@dataclass
class Stack:
    """One project of docker compose; `secrets` is its .env."""

    project: str
    secrets: Path
    files: Sequence[str] = ("docker-compose.yml", "tests/compose/quick.yml")
    api_port: int = field(default_factory=free_port)

    @property
    def url(self) -> str:
        """The address of its API."""
        return f"http://127.0.0.1:{self.api_port}"

    def compose(self, *arguments: str, timeout: float = CALL_S) -> str:
        """Run docker compose on the project and return what it printed."""
        files = [part for file in self.files for part in ("--file", file)]
        project = ["--project-name", self.project, "--env-file", str(self.secrets), "--progress", "quiet"]
        env = surroundings() | images() | {"API_PORT": str(self.api_port)}
        return docker("compose", *files, *project, *arguments, env=env, timeout=timeout)

    def up(self, *arguments: str, profile: str = "") -> None:
        """Start what is not running yet and wait until it is healthy.

        Raises:
            Refused: with the last lines of every container.
        """
        chosen = ["--profile", profile] if profile else []
        options = ["--detach", "--wait", "--wait-timeout", f"{UP_S:.0f}", "--no-build"]
        try:
            self.compose(*chosen, "up", *options, *arguments, timeout=UP_S + CALL_S)
        except Refused as error:
            said = self.compose("logs", "--tail", "10") if self.left() else ""
            raise Refused(f"{error}\n{said}") from error

    def containers(self, service: str = "") -> list[dict[str, Any]]:
        """Return what docker knows about the containers, those that have ended too."""
        ids = self.compose("ps", "--all", "--quiet", *([service] if service else [])).split()
        found: list[dict[str, Any]] = json.loads(docker("inspect", *ids)) if ids else []
        return found

    def python(self, service: str, program: str, *, root: bool = False) -> Any:
        """Run a program in a container of the service, as its user or as root, and return the JSON that it printed."""
        user = ["--user", "0:0"] if root else []
        return json.loads(self.compose("exec", "-T", *user, service, "python", "-c", program))

    def left(self) -> list[str]:
        """Return the containers, volumes and networks of the project."""
        mine = f"label=com.docker.compose.project={self.project}"
        kinds = [("ps", "--all"), ("volume", "ls"), ("network", "ls")]
        return [name for kind in kinds for name in docker(*kind, "--quiet", "--filter", mine).split()]

    def down(self) -> None:
        """Take everything away, data too."""
        self.compose("--profile", "*", "down", "--volumes", "--remove-orphans", timeout=UP_S)


def service_of(container: dict[str, Any]) -> str:
    """Return which service a container belongs to."""
    name: str = container["Config"]["Labels"]["com.docker.compose.service"]
    return name
