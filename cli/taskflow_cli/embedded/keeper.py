"""Keep one child running: start it and wait until it is ready, start it again when it fell, stop it."""

import asyncio
import os
import random
import signal
import time
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from taskflow_cli.embedded.errors import CannotStart
from taskflow_cli.embedded.lines import Sink, Tail, pump
from taskflow_cli.embedded.process import Launch, command_line

POLL_S = 0.1
HEALTHY_S = 60.0
BACKOFF_BASE_S = 0.5
BACKOFF_CAP_S = 30.0
HURRY_GRACE_S = 5.0
OUTPUT_GRACE_S = 2.0


@dataclass(frozen=True)
class Child:
    """One program of the platform. `is_ready` is polled in a thread and may block for some seconds."""

    name: str
    launch: Launch
    is_ready: Callable[[], bool]
    ready_timeout_s: float = 60.0
    stop_signal: signal.Signals = signal.SIGTERM
    hurry_signal: signal.Signals = signal.SIGKILL
    grace_s: float = 10.0


@dataclass(frozen=True)
class Surroundings:
    """What the keepers share: where their own words go, who watches over children, and the wish to hurry a stop."""

    say: Callable[[str], None]
    started: Callable[[int, signal.Signals], None]
    ended: Callable[[int], None]
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    restart_cap_s: float = BACKOFF_CAP_S


def backoff(failures: int, *, chance: float, cap_s: float = BACKOFF_CAP_S) -> float:
    """Return the seconds before the next start after so many failures in a row; `chance` is in [0, 1)."""
    return min(cap_s, BACKOFF_BASE_S * 2.0 ** min(failures - 1, 16)) * (0.5 + chance / 2)


def ending(status: int) -> str:
    """Say in words how a process ended."""
    return f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"


class Keeper:
    """The life of one child, in one asyncio task: start, watch, start again, stop."""

    def __init__(self, child: Child, sink: Sink, surroundings: Surroundings) -> None:
        self.child = child
        self._output = Tail(sink)
        self._around = surroundings
        self._stopping = asyncio.Event()
        self._early_end: int | None = None
        self._is_up = False
        self._task: asyncio.Task[None] | None = None
        self.pid: int | None = None  # None while it is not running

    async def start(self) -> None:
        """Start the child and wait until it is ready; from then on it is kept running.

        Raises:
            CannotStart: it ended before it was ready, or was not ready in time; its last lines are in the message.
        """
        self._task = asyncio.create_task(self._keep(), name=f"keep {self.child.name}")
        deadline = time.monotonic() + self.child.ready_timeout_s
        while not await asyncio.to_thread(self.child.is_ready):
            if self._early_end is not None:
                break
            if time.monotonic() > deadline:
                raise self._failed(f"was not ready within {self.child.ready_timeout_s:.0f} s")
            await asyncio.sleep(POLL_S)
        if self._early_end is not None:
            raise self._failed(ending(self._early_end) + " before it was ready")
        self._is_up = True

    async def stop(self) -> None:
        """Stop the child: its signal, its grace, then by force. Nothing of its process group is left."""
        self._stopping.set()
        if self._task is not None:
            await self._task
        self._output.close()

    def _failed(self, how: str) -> CannotStart:
        last = "".join(f"\n  {line}" for line in self._output.last)
        return CannotStart(f"{self.child.name} {how}." + (f" Its last lines:{last}" if last else ""))

    async def _keep(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                status = await self._run_once()
            except OSError as error:
                self._around.say(f"{self.child.name} cannot be started: {error.strerror}")
                status = os.EX_OSERR
            if self._stopping.is_set():
                return
            if not self._is_up:
                self._early_end = status
                return
            lived = time.monotonic() - began
            failures = 1 if lived >= HEALTHY_S else failures + 1
            chance = random.random()  # noqa: S311 spreads restarts, guards nothing
            wait = backoff(failures, chance=chance, cap_s=self._around.restart_cap_s)
            again = f"{self.child.name} {ending(status)} after {lived:.1f} s; starting it again in {wait:.1f} s"
            self._around.say(f"{again} (failure {failures} in a row)")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), timeout=wait)

    async def _run_once(self) -> int:
        """Run the child until it ends or must stop, and return its status."""
        launch = self.child.launch
        process = await asyncio.create_subprocess_exec(
            *command_line(launch),
            env=launch.env,
            cwd=launch.cwd,
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            start_new_session=True,  # the terminal's Ctrl-C is for the supervisor, which stops in order
        )
        self.pid = process.pid
        self._around.started(process.pid, launch.death_signal)
        assert process.stdout is not None  # noqa: S101 tells the type checker what stdout=PIPE means
        output = asyncio.create_task(pump(process.stdout, self._output))
        exited = asyncio.create_task(process.wait())
        try:
            if await _first(exited, self._stopping) is None:
                await self._end(process, exited)
        finally:
            self.pid = None
            _kill_group(process.pid)
            self._around.ended(process.pid)
            await asyncio.wait({output}, timeout=OUTPUT_GRACE_S)
            output.cancel()
        return await exited

    async def _end(self, process: Process, exited: asyncio.Task[int]) -> None:
        with suppress(ProcessLookupError):
            process.send_signal(self.child.stop_signal)
            if await _first(exited, self._around.hurry, timeout=self.child.grace_s) is None:
                process.send_signal(self.child.hurry_signal)
                await asyncio.wait({exited}, timeout=HURRY_GRACE_S)
        _kill_group(process.pid)
        self._around.say(f"{self.child.name} {ending(await exited)}")


async def _first(
    exited: asyncio.Task[int],
    event: asyncio.Event,
    timeout: float | None = None,  # noqa: ASYNC109 - asyncio.wait's own
) -> int | None:
    """Return the status when the process ends before the event and the timeout, else None."""
    happened = asyncio.create_task(event.wait())
    await asyncio.wait({exited, happened}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    happened.cancel()
    return exited.result() if exited.done() else None


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
