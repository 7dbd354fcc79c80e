"""The HTTP protocol that uvicorn speaks for us, with the bounds that it lacks.

A client has so long for the head of a request (slowloris), a head has so many bytes, a client that stops reading its
answer is cut off, and only so many may be connected at once. The body's bounds are in body.py.
"""

import asyncio
from dataclasses import dataclass
from typing import Any, ClassVar, cast
from uuid import uuid4

from starlette.types import Message
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from taskflow_api.body import ARRIVED
from taskflow_api.problems import Problem

MAX_HEAD_BYTES = 64 * 1024
UNUSUAL = frozenset({b"connection", b"transfer-encoding"})
TEXT = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])  # what a line of a head may hold


@dataclass(frozen=True, slots=True)
class Bounds:
    """Seconds for the head of a request, seconds without reading an answer, and connections at once."""

    head_s: float
    stalled_s: float
    connections: int


class _Cycle(RequestResponseCycle):
    """One request and its answer: the usual one is checked as a whole and written in one piece, head and body."""

    _head: bytes | None = None

    async def send(self, message: Message) -> None:  # type: ignore[override] # as the app sends it
        """Write a part of the answer; a head waits for what follows it."""
        if message["type"] == "http.response.start" and (head := self._usual_head(message)) is not None:
            self._head = head
            self.response_started = True
            self.waiting_for_100_continue = False
        elif self._head is not None and not self.disconnected:
            head, self._head = self._head, None
            if self._is_all(message):
                self._finish(head + message.get("body", b""))
            else:
                self.transport.write(head)
                await super().send(cast("Any", message))
        else:
            await super().send(cast("Any", message))

    def _is_all(self, message: Message) -> bool:
        """Whether the message is the whole body, and nothing stands against writing it now."""
        if message["type"] != "http.response.body" or message.get("more_body") or self.scope["method"] == "HEAD":
            return False
        return len(message.get("body", b"")) == self.expected_content_length and not self.flow.write_paused

    def _finish(self, answer: bytes) -> None:
        """Write a whole answer, and end as the class above does."""
        self.transport.write(answer)
        self.expected_content_length = 0
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:  # since the head was made, the server began to stop
            self.transport.close()
        self.on_response()

    def _usual_head(self, message: Message) -> bytes | None:
        """Return the head, or None when it is for the class above, which also says what is wrong with one."""
        if self.response_started or self.disconnected or self.flow.write_paused or not self.keep_alive:
            return None
        headers = [*self.default_headers, *message.get("headers", ())]
        named = dict(headers)
        length = named.get(b"content-length")
        if length is None or not UNUSUAL.isdisjoint(named):
            return None
        head = STATUS_LINE[message["status"]] + b"".join([b"%b: %b\r\n" % (name, value) for name, value in headers])
        if head.translate(None, TEXT) != b"\r\n" * (len(headers) + 1):
            return None
        self.chunked_encoding, self.expected_content_length = False, int(length)
        return head + b"\r\n"


class BoundedProtocol(HttpToolsProtocol):
    """One connection. `bounded` makes a class of it that uvicorn can take."""

    # One attribute more in the dictionary, and it is no longer shared: 1,000 bytes for each connection.
    __slots__ = ("_head_bytes", "_head_timer", "_in_head", "_stall_timer")

    bounds: ClassVar[Bounds]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Give the client its time, or turn it away where there are too many."""
        super().connection_made(transport)
        self._head_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._in_head = False
        if len(self.connections) > self.bounds.connections:
            detail = f"{self.bounds.connections} clients are connected, as many as may be; come back soon"
            self._refuse(Problem(503, "too_many_connections", detail, {"Retry-After": "1"}))
        else:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        super().connection_lost(exc)
        self._cancel_timers()

    def data_received(self, data: bytes) -> None:
        """Read on, as long as the head of the request stays within its bounds."""
        if self._head_timer is None and self._is_idle():
            self._await_head()
        self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > MAX_HEAD_BYTES:
            detail = f"the request line and headers must not have more than {MAX_HEAD_BYTES} bytes together"
            self._refuse(Problem(431, "request_header_fields_too_large", detail))

    def on_message_begin(self) -> None:
        """Note that a head begins; what came with it in one piece is not counted."""
        self._in_head = True
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Note that the head is there."""
        self._in_head = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        super().on_headers_complete()
        self.cycle.__class__ = _Cycle  # uvicorn names the class where it makes one

    def on_message_complete(self) -> None:
        """Tell the app, which has not begun yet when the body came with the head."""
        self.scope["state"][ARRIVED] = True
        super().on_message_complete()

    def pause_writing(self) -> None:
        """Cut the client off if it does not go on reading its answer."""
        super().pause_writing()
        self._stall_timer = self.loop.call_later(self.bounds.stalled_s, self.transport.abort)

    def resume_writing(self) -> None:
        """Note that the client reads."""
        if self._stall_timer is not None:
            self._stall_timer.cancel()
        super().resume_writing()

    def _is_idle(self) -> bool:
        cycle = cast("RequestResponseCycle | None", self.cycle)  # None until the first request, though typed otherwise
        return cycle is None or cycle.response_complete

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self.bounds.head_s, self._too_slow)

    def _too_slow(self) -> None:
        detail = f"the request did not arrive within {self.bounds.head_s:g} s"
        self._refuse(Problem(408, "request_timeout", detail))

    def _refuse(self, problem: Problem) -> None:
        """Say why and hang up; in the middle of another answer there is nothing to be said."""
        self._cancel_timers()
        if self.transport.is_closing():
            return
        if not self._is_idle():
            self.transport.abort()
            return
        answer = problem.response(uuid4().hex)
        head = [f"HTTP/1.1 {problem.status} \r\n".encode()]
        head += [name + b": " + value + b"\r\n" for name, value in answer.raw_headers]
        self.transport.write(b"".join(head) + b"connection: close\r\n\r\n" + bytes(answer.body))
        self.transport.close()

    def _cancel_timers(self) -> None:
        for timer in (self._head_timer, self._stall_timer):
            if timer is not None:
                timer.cancel()
        self._head_timer = self._stall_timer = None


def bounded(limits: Bounds) -> type[BoundedProtocol]:
    """Return the protocol's class with these bounds."""

    class Protocol(BoundedProtocol):
        bounds = limits

    return Protocol
