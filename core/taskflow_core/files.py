"""Files that tasks made, kept in PostgreSQL in pieces of 1 MiB: none is ever whole in memory.

Written through the session that completes the task, a file exists exactly when its task is COMPLETED; see
docs/adr/0003. Whose file it is, the task says.
"""

import hashlib
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import IO, NamedTuple
from uuid import UUID

from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from taskflow_core.actors import Actor
from taskflow_core.errors import NotFound
from taskflow_core.models.effects import TaskFile
from taskflow_core.models.tasks import Task

PIECE_BYTES = 1024 * 1024


class FileEntry(NamedTuple):
    """A file of a task: its name, media type, size in bytes and the time it was made."""

    name: str
    media_type: str
    size: int
    created_at: datetime


class Written(NamedTuple):
    """How large a stored file is, in bytes, and its sha256 in hexadecimal."""

    size: int
    sha256: str


async def write(session: AsyncSession, task_id: UUID, *, name: str, media_type: str, source: IO[bytes]) -> Written:
    """Store what `source` holds from its position on as a file of the task.

    An empty file is one empty piece. `size` in the table is the piece's own.
    """
    seq = total = 0
    digest = hashlib.sha256()
    while (piece := source.read(PIECE_BYTES)) or seq == 0:
        await session.execute(
            insert(TaskFile).values(
                task_id=task_id, name=name, seq=seq, media_type=media_type, size=len(piece), content=piece
            )
        )
        seq += 1
        total += len(piece)
        digest.update(piece)
    return Written(total, digest.hexdigest())


async def list_files(session: AsyncSession, task_id: UUID, *, actor: Actor) -> list[FileEntry]:
    """Return the files of a task by name; none when the task is absent or another owner's."""
    statement = (
        select(
            col(TaskFile.name),
            func.min(col(TaskFile.media_type)),
            func.sum(col(TaskFile.size)),
            func.min(col(TaskFile.created_at)),
        )
        .join(Task, col(Task.id) == col(TaskFile.task_id))
        .where(col(TaskFile.task_id) == task_id)
        .group_by(col(TaskFile.name))
        .order_by(col(TaskFile.name))
    )
    if not actor.sees_all:
        statement = statement.where(col(Task.owner_id) == actor.user_id)
    return [FileEntry(name, media, int(size), made) for name, media, size, made in await session.execute(statement)]


async def find(session: AsyncSession, task_id: UUID, name: str, *, actor: Actor) -> FileEntry:
    """Return one file's entry.

    Raises:
        NotFound: no such task or file, or another owner's.
    """
    for entry in await list_files(session, task_id, actor=actor):
        if entry.name == name:
            return entry
    raise NotFound(f"the task has no file {name!r}")


async def read(
    open_session: Callable[[], AsyncSession], task_id: UUID, name: str, *, actor: Actor
) -> AsyncIterator[bytes]:
    """Yield a file's pieces in order, each in a session of its own: a slow reader holds no connection.

    Call `find` first: a file that is not there, or not the actor's, yields nothing.
    """
    seq = 0
    while True:
        statement = (
            select(col(TaskFile.content))
            .join(Task, col(Task.id) == col(TaskFile.task_id))
            .where(col(TaskFile.task_id) == task_id, col(TaskFile.name) == name, col(TaskFile.seq) == seq)
        )
        if not actor.sees_all:
            statement = statement.where(col(Task.owner_id) == actor.user_id)
        async with open_session() as session:
            piece = await session.scalar(statement)
        if piece is None:
            return
        yield piece
        seq += 1
