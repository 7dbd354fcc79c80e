"""Server-sent events (HTML Standard, 9.2): the answer that stays open, and what is written into it."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Header
from orjson import Fragment
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from taskflow_api.feed import Feed
from taskflow_api.listeners import Listener
from taskflow_api.rendering import to_json
from taskflow_api.trail import GOES_ON
from taskflow_core import events
from taskflow_core.errors import FieldProblem, Invalid, Unavailable
from taskflow_core.events import ANY_ID, Event, EventFilter, Line
from taskflow_core.tokens import Identity

MEDIA_TYPE = "text/event-stream"
PING_S = 15.0
SEND_TIMEOUT_S = 30.0
PAGE = 200
PING = b": ping\n\n"
LEFT = "left"

Write = Callable[[bytes], Awaitable[None]]
Follow = Callable[[Listener, Write], Awaitable[None]]


def is_wanted(request: Request) -> bool:
    """Whether the client asks for a stream."""
    return MEDIA_TYPE in request.headers.get("accept", "")


Described = Annotated[
    str | None, Header(alias="Last-Event-ID", description="Goes on after that event; browsers send it by themselves.")
]


async def last_event_id(request: Request, _described: Described = None) -> int | None:
    """Return the id that a stream goes on after, or None.

    Raises:
        Invalid: it is no id.
    """
    given = request.headers.get("last-event-id", "")
    if not given:
        return None
    if not given.isdecimal() or not given.isascii() or int(given) > ANY_ID:
        message = "must be the id of an event of this stream"
        raise Invalid("the stream cannot be resumed", [FieldProblem("Last-Event-ID", message)])
    return int(given)


def event_body(event: Event) -> dict[str, Any]:
    """Return the fields of EventResource."""
    return {
        "id": event.id,
        "task_id": event.task_id,
        "type": event.type,
        "queue": event.queue,
        "kind": event.kind,
        "attempt": event.attempt,
        "status": event.status,
        "at": event.at,
        "data": None if event.data is None else Fragment(event.data),
    }


def line_body(line: Line) -> dict[str, Any]:
    """Return the fields of LogLineResource."""
    return {
        "id": line.id,
        "attempt": line.attempt,
        "level": line.level,
        "message": line.message,
        "fields": None if line.fields is None else Fragment(line.fields),
        "at": line.at,
    }


def frame(kind: str, body: Any, *, identifier: int | None = None) -> bytes:
    """Return one event; without an identifier, the client's Last-Event-ID stays what it was."""
    head = b"" if identifier is None else b"id: %d\n" % identifier
    return b"%sevent: %s\ndata: %s\n\n" % (head, kind.encode(), to_json(body))


LastEventId = Annotated[int | None, Depends(last_event_id)]


class EventStream(Response):
    """Sends frames as they come, until they end or the client leaves or reads nothing for SEND_TIMEOUT_S."""

    media_type = MEDIA_TYPE

    def __init__(
        self,
        feed: Feed,
        follow: Follow,
        *,
        identity: Identity,
        filters: EventFilter | None = None,
    ) -> None:
        super().__init__(headers={"X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._listen = partial(feed.listen, identity, filters)
        self._follow = follow

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the request's trail go on: what called this holds more memory than the stream."""
        scope["state"][GOES_ON] = self._stream

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer.

        Raises:
            TooManyStreams, NoStreamFree: a bound is reached; nothing has been sent.
        """
        with self._listen() as listener:
            scope["state"]["held_open"] = True
            leaving = asyncio.create_task(_until_left(receive, listener))
            try:
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                await _send(send, b"retry: %d\n\n" % random.randint(1000, 3000))  # noqa: S311 - spreads reconnections
                await self._follow(listener, partial(_send, send))
                if listener.ended is not None and listener.ended != LEFT:
                    await _send(send, frame("end", {"reason": listener.ended}))
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            except TimeoutError:
                raise ClientDisconnect from None
            finally:
                leaving.cancel()


async def task_events(
    feed: Feed, task_id: UUID, listener: Listener, write: Write, *, after: int, kind: str | None
) -> None:
    """Write what happens to one task, and its progress, until it has finished."""
    progress = None
    with feed.follow(task_id, listener.wake) as task:
        while listener.ended is None:
            finished, known = task.finished, task.progress
            try:
                rows = await feed.read(partial(events.of_task, task_id=task_id, after=after, limit=PAGE, kind=kind))
            except Unavailable:
                await write(await _pause(listener))
                continue
            if rows:
                after = rows[-1].id
                await write(b"".join(frame(row.kind, event_body(row), identifier=row.id) for row in rows))
            if known != progress and known is not None and not finished:
                progress = known
                await write(frame("task.progress", {"task_id": task_id, "progress": Fragment(known)}))
            if len(rows) < PAGE:
                if finished:
                    listener.end("finished")
                elif not await listener.wake.wait(PING_S):
                    await write(PING)


async def task_lines(
    feed: Feed, task_id: UUID, listener: Listener, write: Write, *, after: int, level: str, attempt: int | None
) -> None:
    """Write what a task's handler logs, until the task has finished."""
    query = partial(events.lines, task_id=task_id, limit=PAGE, level=level, attempt=attempt)
    with feed.follow(task_id, listener.wake) as task:
        while listener.ended is None:
            finished = task.finished
            try:
                rows = await feed.read(partial(query, after=after))
            except Unavailable:
                await write(await _pause(listener))
                continue
            if rows:
                after = rows[-1].id
                await write(b"".join(frame("log", line_body(row), identifier=row.id) for row in rows))
            if len(rows) < PAGE:
                if finished:
                    listener.end("finished")
                elif not await listener.wake.wait(PING_S):
                    await write(PING)


async def all_events(feed: Feed, listener: Listener, write: Write, *, after: int, filters: EventFilter) -> None:
    """Write what happens to all tasks that the filter reaches. A ping moves the client's Last-Event-ID on, too."""
    listener.cursor = after
    while listener.ended is None:
        try:
            rows, listener.cursor = await feed.following(listener.cursor, filters, limit=PAGE)
        except Unavailable:
            await write(await _pause(listener))
            continue
        if rows:
            await write(b"".join(frame(row.kind, event_body(row), identifier=row.id) for row in rows))
        elif listener.cursor >= await feed.position() and not await listener.wake.wait(PING_S):
            await write(b": ping\nid: %d\n\n" % listener.cursor)


async def _send(send: Send, piece: bytes) -> None:
    async with asyncio.timeout(SEND_TIMEOUT_S):
        await send({"type": "http.response.body", "body": piece, "more_body": True})


async def _pause(listener: Listener) -> bytes:
    """Wait while PostgreSQL is away, and return what tells the client that the stream lives."""
    await asyncio.sleep(random.uniform(0.5, 1.5))  # noqa: S311 - jitter is no secret
    return PING if listener.ended is None else b""


async def _until_left(receive: Receive, listener: Listener) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    listener.end(LEFT)
