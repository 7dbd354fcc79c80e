"""How a child process is started: command line, environment, account, and the signal that ends it with its parent."""

import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from taskflow_cli.embedded import exec_child

NOBODY = 65_534  # uid and gid: PostgreSQL refuses to run as root


@dataclass(frozen=True)
class Launch:
    """One program to run. `account` is the uid and gid to drop to, `death_signal` arrives when the parent is gone."""

    command: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    account: int | None = None
    death_signal: signal.Signals = signal.SIGKILL


def command_line(launch: Launch) -> list[str]:
    """Return the command line that runs it as a child of this process, bound to this process's life.

    The kernel ties the death signal to the thread that starts the child: start children on the main thread.
    """
    account = "-" if launch.account is None else str(launch.account)
    wrapper = [
        sys.executable,
        "-I",
        "-S",
        exec_child.__file__,
        str(os.getpid()),
        str(int(launch.death_signal)),
        account,
    ]
    return [*wrapper, *launch.command]


def unprivileged() -> int | None:
    """Return the account for programs that refuse to be root, or None when this process is not root."""
    return NOBODY if os.geteuid() == 0 else None


def open_to_others(path: Path) -> bool:
    """Whether any account may enter the path: it and all folders above have the search bit for others."""
    resolved = path.resolve()
    return all(folder.stat().st_mode & 0o001 for folder in (resolved, *resolved.parents))
