"""The way in for single tasks: requests that arrive together share one statement and one pipeline to Redis.

Each is answered after its own row is committed and handed to Redis; see docs/adr/0006.
"""

import asyncio
import random
from collections.abc import Sequence
from typing import LiteralString, NamedTuple, TypeAlias
from uuid import UUID

import psycopg
from psycopg.errors import LockNotAvailable

from taskflow_core.batches import RUNNERS, Batches, Call, away
from taskflow_core.errors import IdempotencyMismatch
from taskflow_core.idempotency import MAX_WAIT_MS, in_flight, replay
from taskflow_core.inserts import (
    COMMITTED,
    HOLDERS,
    Asked,
    Keyed,
    TaskRow,
    Written,
    duplicate,
    holders_of,
    parameter,
    statement,
)
from taskflow_core.lanes import CROWD, lane_of
from taskflow_core.links import Link
from taskflow_core.models.columns import Json
from taskflow_core.queue import DeliveryQueue
from taskflow_core.quotas import OpenTasks, full
from taskflow_core.settings import Settings

PLANNER = f" -c enable_seqscan=off -c plan_cache_mode=force_generic_plan -c lock_timeout={MAX_WAIT_MS}"
AGAIN_S = 0.02  # how soon a request looks again after a key that another one holds


class Accepted(NamedTuple):
    """A task was made; or, when `replayed` is there, it had been, and this is the answer that was given then."""

    row: TaskRow
    replayed: Json | None = None


_Call: TypeAlias = Call[Asked, Accepted]


class Intake:
    """Takes tasks in. One for a process; `open_tasks` says how many unfinished tasks an owner may have."""

    def __init__(self, settings: Settings, queue: DeliveryQueue, open_tasks: OpenTasks) -> None:
        links = [Link(settings, service="api-intake", planner=PLANNER) for _ in range(RUNNERS)]
        self._batches: Batches[Asked, Accepted] = Batches(self._run, links, timeout_s=settings.database_timeout_s)
        self._open = open_tasks
        self._queue = queue
        self._deliveries: set[asyncio.Task[None]] = set()

    async def take(self, row: TaskRow, keyed: Keyed | None = None) -> Accepted:
        """Insert a task as PENDING and deliver it; the lane and the database's times are put into `row`.

        Raises:
            DuplicateTask: an unfinished task of this owner and type holds the same dedup_key.
            TooMany: the owner has too many unfinished tasks.
            IdempotencyConflict: another request holds the key and has not been answered yet.
            IdempotencyMismatch: the key was used with another request.
            Unavailable: the database is away or overloaded; the task may have been made if it went away in between.
        """
        return await self._batches.ask(Asked(row, keyed))

    async def close(self) -> None:
        """Write and deliver what was taken in."""
        await self._batches.close()
        if self._deliveries:
            await asyncio.wait(self._deliveries)

    async def _run(self, link: Link, batch: Sequence[_Call]) -> None:
        made: list[_Call] = []
        try:
            await self._write(link, await self._admitted(link, batch), made)
        finally:
            if made:
                delivery = asyncio.create_task(self._deliver(made))
                self._deliveries.add(delivery)
                delivery.add_done_callback(self._deliveries.discard)

    async def _admitted(self, link: Link, batch: Sequence[_Call]) -> list[_Call]:
        """Give each task its lane, and let those over the quota, and all but one of a key, look for its answer only."""
        try:
            await self._open.look(await link.get(), [call.question.row.owner_id for call in batch])
        except psycopg.OperationalError:  # an idle connection may have died unseen: try a new one
            await link.drop()
            await self._open.look(await link.get(), [call.question.row.owner_id for call in batch])
        keys: set[tuple[UUID, str]] = set()
        admitted = []
        for call in batch:
            asked = call.question
            follows = _is_taken(asked, keys)
            asked.over_quota = not follows and not self._take(asked.row)
            asked.looks_only = follows or asked.over_quota
            if asked.over_quota and asked.keyed is None:
                call.fail(full(self._open.limit))
            else:
                admitted.append(call)
        return admitted

    def _take(self, row: TaskRow) -> bool:
        unfinished = self._open.take(row.owner_id)
        if unfinished is not None:
            row.lane = lane_of(row.queue, row.priority, crowded=unfinished >= CROWD)
        return unfinished is not None

    async def _write(self, link: Link, batch: Sequence[_Call], made: list[_Call]) -> None:
        """Insert; after an error, try the halves, so that it meets only the row it belongs to."""
        if not batch:
            return
        try:
            written = await _insert(link, [call.question for call in batch])
        except psycopg.Error as error:
            if isinstance(error, psycopg.OperationalError) and not isinstance(error, LockNotAvailable):
                self._give_back(batch)
                raise
            if len(batch) == 1:
                self._give_back(batch)
                batch[0].fail(_lone(error, batch[0].question))
                return
            half = len(batch) // 2
            await self._write(link, batch[:half], made)
            await self._write(link, batch[half:], made)
        else:
            await self._settle(link, batch, written, made)

    async def _settle(self, link: Link, batch: Sequence[_Call], written: Sequence[Written], made: list[_Call]) -> None:
        outcomes = {outcome.id: outcome for outcome in written}
        duplicates = []
        for call in batch:
            asked, outcome = call.question, outcomes[call.question.row.id]
            if outcome.created(asked.row):
                call.in_hand = True
                made.append(call)
                continue
            self._give_back([call])
            if outcome.known_hash is not None and outcome.known_response is not None and asked.keyed is not None:
                _replay(call, outcome.known_response, kept_hash=outcome.known_hash, keyed=asked.keyed)
            elif asked.over_quota:
                call.fail(full(self._open.limit))
            elif outcome.is_free:
                duplicates.append(call)
            else:
                self._look_again(call)
        if duplicates:
            cursor = await (await link.get()).execute(HOLDERS, holders_of([call.question.row for call in duplicates]))
            holders = dict(await cursor.fetchall())
            for call in duplicates:
                call.fail(duplicate(call.question.row.dedup_key, holders.get(call.question.row.id)))

    async def _deliver(self, made: Sequence[_Call]) -> None:
        await self._queue.deliver([call.question.row for call in made])
        for call in made:
            call.succeed(Accepted(call.question.row))

    def _look_again(self, call: _Call) -> None:
        """Let a request whose key another one holds take part again soon, for MAX_WAIT_MS in all."""
        loop = asyncio.get_running_loop()
        if loop.time() > call.asked_at + MAX_WAIT_MS / 1000:
            call.fail(in_flight())
        else:
            loop.call_later(AGAIN_S * random.uniform(0.5, 1.5), self._batches.enter, call)  # noqa: S311 - jitter

    def _give_back(self, batch: Sequence[_Call]) -> None:
        for call in batch:
            if not call.question.looks_only:
                self._open.give_back(call.question.row.owner_id)


def _is_taken(asked: Asked, keys: set[tuple[UUID, str]]) -> bool:
    """Whether another row of the batch asks under the same key; `keys` holds those seen so far."""
    if asked.keyed is None:
        return False
    key = asked.row.owner_id, asked.keyed.key
    if key in keys:
        return True
    keys.add(key)
    return False


async def _insert(link: Link, batch: Sequence[Asked]) -> list[Written]:
    """Insert the rows. After a broken connection nobody knows whether they were committed: a new one looks for them."""
    connection = await link.get()
    try:
        return await _written(link, statement(batch), parameter(batch))
    except psycopg.OperationalError:
        if not connection.closed:
            raise
    await link.drop()
    committed = await _written(link, COMMITTED, [asked.row.id for asked in batch])
    known = {outcome.id for outcome in committed}
    left = [asked for asked in batch if asked.row.id not in known]
    return committed + (await _written(link, statement(left), parameter(left)) if left else [])


async def _written(link: Link, query: LiteralString, parameter: str | list[UUID]) -> list[Written]:
    cursor = await (await link.get()).execute(query, [parameter])
    return [Written(*found) for found in await cursor.fetchall()]


def _replay(call: _Call, response: Json, *, kept_hash: bytes, keyed: Keyed) -> None:
    try:
        kept = replay(response, kept_hash=kept_hash, request_hash=keyed.request_hash)
        call.succeed(Accepted(call.question.row, kept))
    except IdempotencyMismatch as error:
        call.fail(error)


def _lone(error: psycopg.Error, asked: Asked) -> Exception:
    """Return the error of a row that failed alone."""
    if isinstance(error, LockNotAvailable):
        return away() if asked.keyed is None else in_flight()
    return error
