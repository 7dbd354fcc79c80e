"""Use-cases of tasks: create, get, list, cancel, retry. None commits; the caller does, once, visibly."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from taskflow_core.actors import Actor
from taskflow_core.lifecycle import TaskStatus
from taskflow_core.models.tasks import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTask:
    """A validated request for a task. `payload` is what the type's model dumped (JSON-compatible)."""

    type: str
    payload: dict[str, Any]
    title: str = ""
    queue: str = "default"
    priority: int = 0
    run_at: datetime | None = None
    max_attempts: int = 3
    timeout_s: int = 300
    dedup_key: str | None = None
    tags: Sequence[str] = ()
    traceparent: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFilter:
    """Which tasks a list holds; None means any. `owner_id` is heeded only for actors who see all."""

    status: TaskStatus | None = None
    type: str | None = None
    queue: str | None = None
    tag: str | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None
    owner_id: UUID | None = None


class Page(NamedTuple):
    """Tasks, newest first, and the id after which the next page starts (None at the end)."""

    tasks: list[Task]
    next_after: UUID | None


async def create(session: AsyncSession, new: NewTask, *, actor: Actor, max_pending: int) -> Task:
    """Insert a task as PENDING. After the commit the caller hands it to `queue.deliver`.

    Raises:
        DuplicateTask: an unfinished task of this owner and type holds the same dedup_key.
        TooMany: the owner has `max_pending` unfinished tasks.
    """
    raise NotImplementedError


async def get(session: AsyncSession, task_id: UUID, *, actor: Actor) -> Task:
    """Return one task.

    Raises:
        NotFound: no such task, or another owner's.
    """
    raise NotImplementedError


async def list_after(
    session: AsyncSession, filters: TaskFilter, *, actor: Actor, limit: int, after: UUID | None
) -> Page:
    """Return a page of tasks that come after the given id (newest first)."""
    raise NotImplementedError


async def list_numbered(
    session: AsyncSession, filters: TaskFilter, *, actor: Actor, limit: int, page: int
) -> tuple[list[Task], int]:
    """Return page number `page` (from 1) and the total, counted up to 10,000."""
    raise NotImplementedError


async def cancel(session: AsyncSession, task_id: UUID, *, actor: Actor) -> Task:
    """Cancel a task that has not finished: PENDING becomes CANCELED, RUNNING is asked to stop.

    Raises:
        NotFound: no such task, or another owner's.
        IllegalTransition: the task has finished.
    """
    raise NotImplementedError


async def retry(session: AsyncSession, task_id: UUID, *, actor: Actor) -> Task:
    """Give a FAILED task a fresh set of attempts. After the commit the caller hands it to `queue.deliver`.

    Raises:
        NotFound: no such task, or another owner's.
        IllegalTransition: the task is not FAILED.
        DuplicateTask: another unfinished task took its dedup_key meanwhile.
    """
    raise NotImplementedError
