"""How many unfinished tasks owners have: counted now and then, with what this process added since.

Counting many rows is dear, so a count is used the longer, the more it counted, and a full count is made only of owners
with a crowd. Tasks that other processes add meanwhile are seen at the next count: an owner may go over the quota by
what they add in FULL_FRESH_S. Below half of the quota there is no hurry.
"""

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, LiteralString
from uuid import UUID

from psycopg import AsyncConnection

from taskflow_core.errors import TooMany
from taskflow_core.lanes import CROWD

FRESH_S = 0.05
FULL_FRESH_S = 2.0
UNHURRIED_S = 10.0
COUNTED_PER_S = 50_000  # a refusal is checked by a new count, but an owner's counts take only a small part of the time
MAX_OWNERS = 10_000

COUNT: LiteralString = """
SELECT o.id, (SELECT count(*) FROM (
  SELECT FROM tasks WHERE owner_id = o.id AND finished_at IS NULL LIMIT %s
) AS open) FROM unnest(%s::uuid[]) AS o(id)
"""


@dataclass(slots=True)
class _Standing:
    unfinished: int
    counted_at: float
    looked_at: float


class OpenTasks:
    """What is known of the owners, at most MAX_OWNERS of them."""

    def __init__(self, *, limit: int) -> None:
        self.limit = limit
        self._known: dict[UUID, _Standing] = {}

    async def look(self, connection: AsyncConnection[Any], owners: Iterable[UUID]) -> None:
        """Count again where that is due; `owners` has one entry for each task that is wanted."""
        wanted = Counter(owners)
        now = time.monotonic()
        few = min(CROWD, self.limit)
        looked = [owner for owner in wanted if self._is_due(owner, wanted[owner], now)]
        full = []
        for owner, unfinished in await self._count(connection, looked, few):
            if unfinished < CROWD:
                self._know(owner, _Standing(unfinished, now, now))
            elif self._is_full_count_due(owner, wanted[owner], now):
                full.append(owner)
            elif owner in self._known:
                self._known[owner].looked_at = now
        for owner, unfinished in await self._count(connection, full, self.limit):
            self._know(owner, _Standing(unfinished, now, now))

    def take(self, owner_id: UUID) -> int | None:
        """Return how many unfinished tasks the owner has and add one, or return None when there are `limit`."""
        standing = self._known.get(owner_id)
        if standing is None:  # forgotten since the look, because of MAX_OWNERS others
            return 0
        if standing.unfinished >= self.limit:
            return None
        standing.unfinished += 1
        return standing.unfinished - 1

    def give_back(self, owner_id: UUID) -> None:
        """Take back what `take` added: the task was not made."""
        if owner_id in self._known:
            self._known[owner_id].unfinished -= 1

    def _is_due(self, owner_id: UUID, wanted: int, now: float) -> bool:
        standing = self._known.get(owner_id)
        if standing is None:
            return True
        # A crowd does not vanish at once: the larger it is, the later it is looked at again.
        patience = min(FULL_FRESH_S, max(FRESH_S, standing.unfinished / COUNTED_PER_S))
        if now - standing.looked_at > patience:
            return True
        return self._is_refusal(standing, wanted, now)

    def _is_full_count_due(self, owner_id: UUID, wanted: int, now: float) -> bool:
        standing = self._known.get(owner_id)
        if standing is None or standing.unfinished < CROWD:
            return True
        patience = FULL_FRESH_S if standing.unfinished > self.limit / 2 else UNHURRIED_S
        return now - standing.counted_at > patience or self._is_refusal(standing, wanted, now)

    def _is_refusal(self, standing: _Standing, wanted: int, now: float) -> bool:
        """Whether the quota would be reached by a count that may be made again."""
        reached = standing.unfinished + wanted > self.limit
        return reached and now - standing.counted_at > standing.unfinished / COUNTED_PER_S

    def _know(self, owner_id: UUID, standing: _Standing) -> None:
        self._known.pop(owner_id, None)
        if len(self._known) >= MAX_OWNERS:
            self._known.pop(next(iter(self._known)))
        self._known[owner_id] = standing

    async def _count(self, connection: AsyncConnection[Any], owners: list[UUID], limit: int) -> list[tuple[UUID, int]]:
        if not owners:
            return []
        return await (await connection.execute(COUNT, [limit, owners])).fetchall()


def full(limit: int) -> TooMany:
    """Return the error of an owner who has `limit` unfinished tasks."""
    return TooMany(f"you have {limit} unfinished tasks; wait until some have finished", retry_after_s=5)
