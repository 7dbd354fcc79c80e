"""Named APIs in this user's config.toml: `[profiles.prod] api = "https://..."`, and which one is used by default."""

import os
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from taskflow_cli.failures import BadInput

PROFILE_VARIABLE = "TASKFLOW_PROFILE"
CURRENT = "profile"


def config_folder(environ: Mapping[str, str]) -> Path:
    """Return the folder of the user whose environment this is ($XDG_CONFIG_HOME, else ~/.config)."""
    base = environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME") or Path.home()) / ".config"
    return Path(base) / "taskflow"


class Profiles:
    """The file config.toml; one that is absent names no profile."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._document = self._read()

    @classmethod
    def of_user(cls, environ: Mapping[str, str]) -> "Profiles":
        """Return the profiles of the user whose environment this is.

        Raises:
            BadInput: the file cannot be read, or is not TOML.
        """
        return cls(config_folder(environ) / "config.toml")

    @property
    def current(self) -> str:
        """Return the name of the profile that is used by default; empty for none."""
        return str(self._document.get(CURRENT, ""))

    def names(self) -> list[str]:
        """Return the names of all profiles."""
        return sorted(self._tables())

    def address(self, name: str) -> str:
        """Return the address that a profile names.

        Raises:
            BadInput: there is no such profile, or it names none.
        """
        profile = self._tables().get(name)
        if profile is None:
            known = ", ".join(self.names()) or "none"
            raise BadInput(f"{self.path} has no profile {name!r} (it has: {known})", hint=_example(name))
        address = profile.get("api") if isinstance(profile, dict) else None
        if not isinstance(address, str):
            raise BadInput(f"{self.path}: profile {name!r} has no api", hint=_example(name))
        return address

    def use(self, name: str) -> None:
        """Make a profile the default; everything else in the file stays as it is.

        Raises:
            BadInput: there is no such profile, or the file cannot be written.
        """
        self.address(name)
        lines = self.path.read_text("utf-8").splitlines(keepends=True)
        first_table = next((at for at, line in enumerate(lines) if line.lstrip().startswith("[")), len(lines))
        kept = [line for line in lines[:first_table] if line.partition("=")[0].strip() != CURRENT]
        self._write("".join([f'{CURRENT} = "{name}"\n', *kept, *lines[first_table:]]))

    def _tables(self) -> dict[str, Any]:
        tables = self._document.get("profiles", {})
        return tables if isinstance(tables, dict) else {}

    def _read(self) -> dict[str, Any]:
        try:
            return tomllib.loads(self.path.read_text("utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise BadInput(f"cannot use {self.path}: {error}", hint="correct the file, or remove it") from None

    def _write(self, text: str) -> None:
        try:
            tomllib.loads(text)
            descriptor, name = tempfile.mkstemp(dir=self.path.parent, prefix=".config-")
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            Path(name).replace(self.path)
        except (OSError, ValueError) as error:
            raise BadInput(f"cannot change {self.path}: {error}") from None


def _example(name: str) -> str:
    return f'it looks like: [profiles.{name}] and below it: api = "https://tasks.example.com"'
