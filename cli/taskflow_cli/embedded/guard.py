"""Outlive the supervisor for a moment and end what it left: each child and its whole process group.

The kernel's death signal reaches a child, but not what the child started itself. Run by path with `python -I -S`.
Standard input has a line for each change, `+PID SIGNAL` or `-PID`; its end says that the supervisor is gone. After a
clean stop nothing is on the list then.
"""

import os
import signal
import sys
import time
from collections.abc import Iterable

GRACE_S = 10.0
INTERVAL_S = 0.05


def main() -> int:
    """Follow the list until the supervisor is gone, then end what is on it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    children = follow(sys.stdin)
    for pid, death_signal in children.items():
        _send(pid, death_signal)
    deadline = time.monotonic() + GRACE_S
    while any(_exists(pid) for pid in children) and time.monotonic() < deadline:
        time.sleep(INTERVAL_S)
    for pid in children:
        _send(pid, signal.SIGKILL)
    return 0


def follow(lines: Iterable[str]) -> dict[int, int]:
    """Return which children are left when the lines end, each with the signal that ends it."""
    children: dict[int, int] = {}
    for line in lines:
        pid, _, number = line[1:].strip().partition(" ")
        if line.startswith("+"):
            children[int(pid)] = int(number)
        else:
            children.pop(int(pid), None)
    return children


def _send(pid: int, number: int) -> None:
    """Signal the child; SIGKILL goes to its group, a gentler one to itself, which then ends its own children."""
    try:
        if number == signal.SIGKILL:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    raise SystemExit(main())
