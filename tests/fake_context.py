"""The contract's other side for tests of handlers: sessions, commit with completion, cancel, progress."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID

import structlog
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.typing import FilteringBoundLogger

from taskflow_core.clock import utc_now
from taskflow_core.database import Sessions
from taskflow_core.handlers import Context, TaskCanceled, TaskType
from taskflow_core.identifiers import new_id, time_of
from taskflow_core.models.tasks import Task
from taskflow_core.models.users import User


@dataclass
class FakeContext:
    """A Context whose completing session is committed or rolled back by `run`, as the worker does."""

    sessions: Sessions
    task_id: UUID
    owner_id: UUID
    attempt: int = 1
    deadline: datetime = field(default_factory=lambda: utc_now() + timedelta(minutes=5))
    canceled: bool = False
    reports: list[tuple[float, float | None, str]] = field(default_factory=list)
    completing: AsyncSession | None = None

    @property
    def idempotency_key(self) -> str:
        return str(self.task_id)

    @property
    def log(self) -> FilteringBoundLogger:
        return cast("FilteringBoundLogger", structlog.get_logger("test"))

    def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        self.reports.append((done, total, message))

    def check_cancel(self) -> None:
        if self.canceled:
            raise TaskCanceled

    async def session(self) -> AsyncSession:
        if self.completing is None:
            self.completing = self.sessions()
        return self.completing

    def new_session(self) -> AsyncSession:
        return self.sessions()


async def run(ctx: FakeContext, task_type: TaskType, payload: dict[str, Any]) -> dict[str, Any]:
    """Run a handler as a worker would: validate, call, commit its session on success, roll it back on failure."""
    handler = cast("Any", task_type.handler)
    try:
        result: BaseModel = await handler(cast("Context", ctx), task_type.payload.model_validate(payload))
        if ctx.completing is not None:
            await ctx.completing.commit()
        return result.model_dump(mode="json")
    finally:
        if ctx.completing is not None:
            await ctx.completing.close()
            ctx.completing = None


async def add_user(sessions: Sessions) -> UUID:
    """Insert a user and return the id."""
    user_id = new_id()
    async with sessions() as session:
        session.add(User(id=user_id, email=f"{user_id}@example.com", password_hash="x"))
        await session.commit()
    return user_id


async def add_task(sessions: Sessions, owner_id: UUID, type_: str, **columns: Any) -> UUID:
    """Insert a task, PENDING unless told otherwise, and return its id."""
    task_id = columns.pop("id", None) or new_id()
    async with sessions() as session:
        session.add(Task(id=task_id, owner_id=owner_id, type=type_, payload={}, created_at=time_of(task_id), **columns))
        await session.commit()
    return task_id


async def context(sessions: Sessions, type_: str, owner_id: UUID | None = None) -> FakeContext:
    """Return a context for a new task of a new user, or of that one."""
    owner = owner_id or await add_user(sessions)
    return FakeContext(sessions, await add_task(sessions, owner, type_), owner)
