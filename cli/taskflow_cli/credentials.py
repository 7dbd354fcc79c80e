"""The tokens of this user's logins, one file keyed by the API's address and profile, for the owner's eyes only."""

import fcntl
import json
import os
import random
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from taskflow_cli.failures import BadInput, DeadlinePassed
from taskflow_cli.profiles import config_folder

LOCK_DEADLINE_S = 30.0


@dataclass(frozen=True, slots=True)
class Login:
    """What one login left: who, and both tokens."""

    email: str
    access_token: str
    refresh_token: str


class Credentials:
    """A file of logins. Every change is made under `lock()` and replaces the file in one step."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def of_user(cls, environ: Mapping[str, str]) -> "Credentials":
        """Return the file of the user whose environment this is ($XDG_CONFIG_HOME, else ~/.config)."""
        return cls(config_folder(environ) / "credentials.json")

    def get(self, key: str) -> Login | None:
        """Return the login of that key (`Location.login_key`), or None.

        Raises:
            BadInput: the file cannot be read or is damaged.
        """
        entry = self._read().get(key)
        if entry is None:
            return None
        try:
            return Login(**entry)
        except TypeError:
            raise self._damaged("an entry has other fields than expected") from None

    def put(self, key: str, login: Login) -> None:
        """Store the login of that key. Call it under `lock()`."""
        self._write(self._read() | {key: asdict(login)})

    def forget(self, key: str) -> None:
        """Remove the login of that key, if any. Call it under `lock()`."""
        entries = self._read()
        if entries.pop(key, None) is not None:
            self._write(entries)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other commands of this user from changing the file meanwhile.

        Raises:
            DeadlinePassed: another command held it for over 30 s.
            BadInput: the folder cannot be written.
        """
        with self._open_lock() as descriptor:
            deadline = time.monotonic() + LOCK_DEADLINE_S
            while not _try_lock(descriptor):
                if time.monotonic() > deadline:
                    raise DeadlinePassed(f"another command held {self._path} for {LOCK_DEADLINE_S:.0f} s")
                time.sleep(random.uniform(0.02, 0.08))  # noqa: S311 - jitter, not a secret
            yield

    @contextmanager
    def _open_lock(self) -> Iterator[int]:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise BadInput(
                f"cannot write to {self._path.parent}: {error.strerror}",
                hint="set XDG_CONFIG_HOME to a folder of yours, or use TASKFLOW_TOKEN",
            ) from None
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _read(self) -> dict[str, Any]:
        try:
            document = json.loads(self._path.read_text("utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise self._damaged(str(error)) from None
        if not isinstance(document, dict):
            raise self._damaged("it is not a JSON object")
        return document

    def _write(self, entries: dict[str, Any]) -> None:
        descriptor, name = tempfile.mkstemp(dir=self._path.parent, prefix=".credentials-")  # made with mode 0600
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(entries, file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self._path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def _damaged(self, why: str) -> BadInput:
        return BadInput(f"cannot use {self._path}: {why}", hint="remove the file and run: taskflow login")


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
