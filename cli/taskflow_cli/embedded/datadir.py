"""The platform's data folder: one owner at a time, secrets made once, and a file that tells others where it runs."""

import fcntl
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from taskflow_cli.embedded.errors import CannotStart
from taskflow_cli.embedded.process import unprivileged

STATE_FILE = "platform.json"
TARGETS_FILE = "prometheus.json"  # as Prometheus' file_sd_configs read it


@dataclass(frozen=True)
class State:
    """Where a running platform is: what `platform.json` holds. Both database addresses carry their password."""

    api_url: str
    mail_dir: str
    smtp_port: int
    pid: int
    database_url: str
    redis_url: str


def prepare(folder: Path) -> None:
    """Make the data folder. PostgreSQL's own account must be able to pass through when root starts the platform.

    Raises:
        CannotStart: it cannot be made or is no folder.
    """
    try:
        folder.mkdir(mode=0o700 if unprivileged() is None else 0o711, parents=True, exist_ok=True)
    except OSError as error:
        raise CannotStart(f"the data folder {folder} cannot be made: {error.strerror}.", status=2) from None


class Lock:
    """The right to run on a data folder, held until `release` or the end of the process."""

    def __init__(self, folder: Path) -> None:
        self._file = (folder / "lock").open("a+")

    def acquire(self) -> None:
        """Take the lock and leave this process's id in it.

        Raises:
            CannotStart: another process holds it; the message names it.
        """
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            owner, folder = self._file.read().strip(), Path(self._file.name).parent
            self._file.close()
            raise CannotStart(f"the platform on {folder} is already running (pid {owner}).", status=2) from None
        self._file.seek(0)
        self._file.truncate()
        self._file.write(f"{os.getpid()}\n")
        self._file.flush()

    def release(self) -> None:
        """Give the right back."""
        self._file.close()


def secret(folder: Path, name: str, *, size: int) -> str:
    """Return the secret of that name, made once from `size` random bytes; it is text that is safe in a URL."""
    path = folder / "secrets" / name
    path.parent.mkdir(mode=0o700, exist_ok=True)
    if not path.exists():
        _write_private(path, secrets.token_urlsafe(size))
    return path.read_text().strip()


def write_state(folder: Path, state: State) -> None:
    """Tell other commands where the platform runs."""
    _write_private(folder / STATE_FILE, json.dumps(asdict(state), indent=2) + "\n")


def remove_state(folder: Path) -> None:
    """Say that no platform runs here."""
    for name in (STATE_FILE, TARGETS_FILE):
        (folder / name).unlink(missing_ok=True)


def write_targets(folder: Path, targets: Mapping[str, str]) -> None:
    """Tell Prometheus where each process tells its metrics, as host:port."""
    groups = [{"targets": [address], "labels": {"component": name}} for name, address in targets.items()]
    _write_private(folder / TARGETS_FILE, json.dumps(groups, indent=2) + "\n")


def _write_private(path: Path, text: str) -> None:
    """Write a file for the owner's eyes, whole or not at all."""
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
