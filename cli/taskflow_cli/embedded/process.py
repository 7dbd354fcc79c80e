"""How a child process is started: command line, environment, account, and the signal that ends it with its parent."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from taskflow_cli.embedded import exec_child, guard

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


def is_alive(pid: int) -> bool:
    """Whether a process has that number, ours or another account's; a zombie counts as gone where /proc tells."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return True


def arguments_of(pid: int) -> str:
    """Return the command line of a process, empty when it is gone."""
    if Path("/proc/self").exists():
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return ""
    return subprocess.run(  # noqa: S603 a number and fixed words
        ["/bin/ps", "-o", "args=", "-p", str(pid)], check=False, capture_output=True, text=True, timeout=10
    ).stdout


class Guard:
    """A process that outlives this one for a moment, to end the process groups of the children it left."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(  # noqa: S603 our own file, run by path
            [sys.executable, "-I", "-S", guard.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            bufsize=0,
        )

    def started(self, pid: int, death_signal: signal.Signals) -> None:
        """Watch over a child that leads its own process group."""
        self._write(f"+{pid} {int(death_signal)}\n")

    def ended(self, pid: int) -> None:
        """Forget a child; its number may soon be another program's."""
        self._write(f"-{pid}\n")

    def close(self) -> None:
        """Let the guard go, which ends what is still on its list."""
        assert self._process.stdin is not None  # noqa: S101 tells the type checker what stdin=PIPE means
        self._process.stdin.close()
        self._process.wait(timeout=guard.GRACE_S + 5)

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None  # noqa: S101 as above
        with suppress(BrokenPipeError):  # killed itself; the kernel's death signal still holds the children
            self._process.stdin.write(line.encode())
