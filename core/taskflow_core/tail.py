"""Follows the events of all tasks in the order of their ids, and skips none.

An id is assigned before its transaction commits, so a smaller one may become visible after a greater one, or never
(a rollback leaves a gap). A writer takes its lock on the table before its first id and gives it up after its commit is
visible. So: whoever held that lock after a gap was seen may still fill it; once they all have let go, the next look
shows what they wrote, and a gap that is left stays empty. Transactions that write no event hold nothing up.
"""

from typing import Any, LiteralString

from psycopg import AsyncConnection
from psycopg.rows import tuple_row

from taskflow_core import events
from taskflow_core.events import ANY_ID, Event

LIMIT = 1000

WRITERS: LiteralString = """
SELECT virtualtransaction FROM pg_locks
WHERE locktype = 'relation' AND relation = 'task_events'::regclass AND mode = 'RowExclusiveLock' AND granted
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
LAST: LiteralString = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM task_events_id_seq"


class Tail:
    """Where one reader is: every event up to `position` was returned, or was there before. `seen` is the newest."""

    def __init__(self) -> None:
        self.position = 0
        self.seen = 0
        self.ready = False
        self._horizon = 0
        self._writers: frozenset[str] | None = None

    async def read(self, connection: AsyncConnection[Any]) -> list[Event]:
        """Return up to LIMIT events that follow, in order; at first none, until `ready`: the start is known."""
        if not self.ready:
            await self._start(connection)
            return []
        if self._horizon > self.position:
            await self._ask_writers(connection)
        rows = await events.between(connection, self.position, ANY_ID, limit=LIMIT)
        self.seen = max(self.position, rows[-1].id if rows else 0)
        settled = self._horizon if self._writers is not None and not self._writers else self.position
        if len(rows) == LIMIT:
            settled = min(settled, rows[-1].id)
        count = 0
        for row in rows:
            if row.id > settled and row.id != self.position + 1:
                break
            self.position = row.id
            count += 1
        self.position = max(self.position, settled)
        if not self._writers or self.position >= self._horizon:
            self._horizon = rows[-1].id if rows else self.position
            self._writers = None
        return rows[:count]

    async def resume(self, connection: AsyncConnection[Any]) -> None:
        """Go on over a new connection: a standby that took over may have lost the newest ids, and gives them again."""
        if self.ready and (last := await _last_id(connection)) < self.position:
            self.position = self._horizon = last
        self._writers = None

    async def _start(self, connection: AsyncConnection[Any]) -> None:
        """Start after the newest id, once nobody can fill a gap below it."""
        if self._writers is None:
            self._horizon = await _last_id(connection)
        await self._ask_writers(connection)
        if not self._writers:
            self.position, self._writers, self.ready = self._horizon, None, True

    async def _ask_writers(self, connection: AsyncConnection[Any]) -> None:
        async with connection.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(WRITERS)
            writing = frozenset(row[0] for row in await cursor.fetchall())
        self._writers = writing if self._writers is None else self._writers & writing


async def _last_id(connection: AsyncConnection[Any]) -> int:
    async with connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(LAST)
        row = await cursor.fetchone()
        return int(row[0]) if row else 0
