"""Real workers and schedulers as child processes, and tasks for them."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from taskflow_core import tasks
from taskflow_core.actors import Actor
from taskflow_core.database import Sessions
from taskflow_core.lifecycle import FINAL
from taskflow_core.models.tasks import Task
from taskflow_core.models.users import Role
from taskflow_core.queue import DeliveryQueue
from taskflow_core.tasks import NewTask
from waiting import eventually, eventually_async

PLUGIN = Path(__file__).parent / "plugin"
ROOT = Path(__file__).parents[1]


class Child:
    """A child process and what it wrote."""

    def __init__(self, module: str, env: Mapping[str, str], log: Path) -> None:
        self.log = log
        path = os.pathsep.join([str(PLUGIN), *filter(None, [os.environ.get("PYTHONPATH")])])
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module],
                env={"PATH": os.environ["PATH"], "PYTHONPATH": path, **env},
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def said(self, event: str) -> bool:
        """Whether the child logged the event."""
        return f'"event":"{event}"' in self.log.read_text()

    def wait_for(self, event: str) -> "Child":
        """Wait until the child logged the event, or fail with its log."""
        eventually(lambda: self.said(event) or self.process.poll() is not None)
        assert self.said(event), self.log.read_text()
        return self

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def stop(self) -> int:
        """Send SIGTERM and return the exit status."""
        self.kill(signal.SIGTERM)
        return self.process.wait(timeout=30)


@dataclass
class Children:
    """Starts children that are gone when the test ends."""

    env: dict[str, str]
    folder: Path
    started: list[Child]

    def worker(self, **settings: str) -> Child:
        """Start a worker and wait until it works."""
        return self.start("taskflow_worker", **settings).wait_for("worker.started")

    def scheduler(self, **settings: str) -> Child:
        """Start a scheduler and wait until it works."""
        return self.start("taskflow_worker.scheduler", **settings).wait_for("scheduler.started")

    def start(self, module: str, **settings: str) -> Child:
        """Start a module with settings of its own (`lease_s="2"` becomes TASKFLOW_LEASE_S)."""
        env = {**self.env, **{f"TASKFLOW_{name.upper()}": value for name, value in settings.items()}}
        child = Child(module, env, self.folder / f"{module}-{len(self.started)}.log")
        self.started.append(child)
        return child


@contextlib.contextmanager
def children(env: dict[str, str], folder: Path) -> Iterator[Children]:
    """Yield a nursery whose children are killed at the end."""
    nursery = Children(env, folder, [])
    try:
        yield nursery
    finally:
        for child in nursery.started:
            child.kill(signal.SIGCONT)
            child.kill()
            child.process.wait(timeout=10)


class Client:
    """Submits tasks and looks at them, through the use-cases."""

    def __init__(self, sessions: Sessions, queue: DeliveryQueue) -> None:
        self.sessions = sessions
        self.queue = queue
        self.actor = Actor(uuid4(), Role.USER)

    async def submit(self, type_: str, *, deliver: bool = True, **fields: Any) -> UUID:
        """Create a task and deliver it, as the API does; return its id."""
        payload = fields.pop("payload", {})
        async with self.sessions() as session:
            new = NewTask(type=type_, payload=payload, **fields)
            task = await tasks.create(session, new, actor=self.actor, max_pending=100_000)
            await session.commit()
        if deliver:
            await self.queue.deliver([task])
        return task.id

    async def get(self, task_id: UUID) -> Task:
        """Return the task as it is now."""
        async with self.sessions() as session:
            return await tasks.get(session, task_id, actor=self.actor)

    async def cancel(self, task_id: UUID) -> None:
        """Cancel, as the API does."""
        async with self.sessions() as session:
            await tasks.cancel(session, task_id, actor=self.actor)
            await session.commit()

    async def until(self, task_id: UUID, *statuses: str, timeout: float = 30.0) -> Task:  # noqa: ASYNC109 polls
        """Wait until the task has one of the statuses (default: a final one)."""
        wanted = set(statuses or FINAL)

        async def look() -> Task | None:
            task = await self.get(task_id)
            return task if task.status in wanted else None

        found = await eventually_async(look, timeout)
        assert found is not None
        return found

    async def history(self, task_id: UUID) -> list[tuple[int, str]]:
        """Return (attempt, outcome) of every attempt that ended."""
        async with self.sessions() as session:
            rows = await tasks.attempts(session, task_id, actor=self.actor)
        return [(row.attempt, row.outcome) for row in rows]
