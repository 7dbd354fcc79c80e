"""Workers that start fast: forked off a process that has imported everything, and opened nothing yet."""

import ctypes
import os
import signal
import sys
import traceback

from taskflow_core.handlers import Registry
from taskflow_worker import main as worker

ALIVE = 12
PR_SET_PDEATHSIG = 1


def main() -> None:
    """Keep so many workers alive until killed; say when one ends with another status than 0."""
    Registry.load()
    alive: set[int] = set()
    while True:
        while len(alive) < ALIVE:
            alive.add(os.fork() or work())
        pid, status = os.wait()
        alive.discard(pid)
        if status != 0:
            sys.stdout.write(f'{{"event":"worker.failed","status":{status}}}\n')
            sys.stdout.flush()


def work() -> int:
    """Be a worker, which ends with its parent in any case."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    try:
        worker.main()
        sys.stdout.flush()
    except BaseException:  # noqa: BLE001 - a child must never return into its parent's loop
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main()
