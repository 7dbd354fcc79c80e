"""Become another program that dies with the process that asked for it.

Run by path with `python -I -S`, so it needs nothing but the standard library. A tiny program in between rather than
`preexec_fn`: the supervisor has threads, and Python code between fork and exec can then deadlock on a lock that a
thread held. The order matters: setuid clears the death signal, so the account comes first.

Arguments: parent's pid, death signal, account (uid = gid) or `-`, command line.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """Drop to the account, tie the life to the parent's, and become the command. Return only when that failed."""
    parent, death_signal, account, *command = arguments
    if account != "-":
        os.setgroups([])
        os.setgid(int(account))
        os.setuid(int(account))
    if sys.platform == "linux":
        _die_with_parent(int(death_signal))
    if os.getppid() != int(parent):
        return 1  # the parent died before the kernel was told
    # Ignored signals survive exec: Python ignores SIGPIPE, a shell's background job has SIGINT ignored.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)  # noqa: S606 the command line is built by the supervisor, no shell reads it
    except OSError as error:
        sys.stderr.write(f"cannot run {command[0]}: {error.strerror}\n")
    return 127


def _die_with_parent(number: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, number, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
