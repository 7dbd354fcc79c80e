"""The HTTP protocol bounds what a client may take: time for a head, bytes of a head, answers unread, connections."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, cast

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from taskflow_api.protocol import MAX_HEAD_BYTES, BoundedProtocol, Bounds, bounded
from waiting import eventually_async

HEAD = b"GET / HTTP/1.1\r\nHost: taskflow.test\r\n"
PATIENCE_S = 20
PIECE, PIECES = b"x" * 65_536, 1000

OF_TWO_BYTES = (b"content-length", b"2")
HEADS = {
    "/whole": [OF_TWO_BYTES, (b"x-own", b"one")],
    "/closing": [OF_TWO_BYTES, (b"connection", b"close")],
    "/line-in-value": [OF_TWO_BYTES, (b"x-own", b"one\r\nset-cookie: a=b")],
    "/newline-in-value": [OF_TWO_BYTES, (b"x-own", b"one\nset-cookie: a=b")],
    "/line-in-name": [OF_TWO_BYTES, (b"x-own: one\r\nset-cookie", b"a=b")],
    "/nul-in-value": [OF_TWO_BYTES, (b"x-own", b"one\x00")],
}


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer at once, or /endless with more than any buffer holds, or with the headers that HEADS has for the path."""
    if scope["path"] in HEADS:
        await send({"type": "http.response.start", "status": 200, "headers": HEADS[scope["path"]]})
        await send({"type": "http.response.body", "body": b"ok"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(PIECES if scope["path"] == "/endless" else 0):
        await send({"type": "http.response.body", "body": PIECE, "more_body": True})
        await asyncio.sleep(0)
    await send({"type": "http.response.body", "body": b"ok"})


class Serving(NamedTuple):
    port: int
    state: ServerState


@asynccontextmanager
async def serving(*, head_s: float = 30, stalled_s: float = 30, connections: int = 10) -> AsyncIterator[Serving]:
    """Serve the protocol on a port of its own."""
    protocol = bounded(Bounds(head_s, stalled_s, connections))
    config = uvicorn.Config(answer, http=protocol, log_config=None, access_log=False, timeout_keep_alive=60)
    config.load()
    state = ServerState()

    def connected() -> asyncio.Protocol:
        return protocol(config=config, server_state=state, app_state={})

    server = await asyncio.get_running_loop().create_server(connected, "127.0.0.1", 0)
    try:
        yield Serving(server.sockets[0].getsockname()[1], state)
    finally:
        server.close()
        for connection in list(state.connections):
            connection.transport.abort()
        await asyncio.wait_for(asyncio.gather(*state.tasks, return_exceptions=True), PATIENCE_S)


Open = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


@asynccontextmanager
async def clients(server: Serving) -> AsyncIterator[Open]:
    """Open connections that are closed at the end."""
    writers: list[asyncio.StreamWriter] = []

    async def opened() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writers.append(writer)
        return reader, writer

    yield opened
    for writer in writers:
        writer.transport.abort()


async def problem(reader: asyncio.StreamReader) -> dict[str, Any]:
    """Read to the end of the connection and return the problem document."""
    raw = await asyncio.wait_for(reader.read(), PATIENCE_S)
    head, _, body = raw.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head
    assert b"connection: close" in head
    found: dict[str, Any] = json.loads(body)
    assert head.startswith(f"HTTP/1.1 {found['status']} ".encode())
    return found


async def dribble(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Send the same byte again and again, until the other side has had enough."""
    try:
        while not writer.is_closing():
            writer.write(data)
            await writer.drain()
            await asyncio.sleep(0.02)
    except ConnectionError:
        pass


@pytest.mark.parametrize("begin", [b"GET /", HEAD, HEAD + b"X-Slow: ", b"\r\n"])
async def test_a_client_that_never_ends_its_head_is_told_and_closed(begin: bytes) -> None:
    async with serving(head_s=0.3) as server, clients(server) as opened:
        reader, writer = await opened()
        writer.write(begin)
        dribbling = asyncio.create_task(dribble(writer, b"\r\n" if begin == b"\r\n" else b"a"))
        try:
            raw = await asyncio.wait_for(reader.read(4096), PATIENCE_S)
        except ConnectionError:  # it was closed while more was on its way
            raw = b""
        dribbling.cancel()
        assert raw == b"" or b'"request_timeout"' in raw


async def test_the_time_for_a_head_counts_again_for_each_request_of_a_connection() -> None:
    async with serving(head_s=0.5) as server, clients(server) as opened:
        reader, writer = await opened()
        for _ in range(2):
            writer.write(HEAD + b"\r\n")
            assert (await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), PATIENCE_S)).startswith(b"HTTP/1.1 200")
        writer.write(HEAD)
        assert (await problem(reader))["code"] == "request_timeout"


async def test_a_head_beyond_its_bytes_is_refused_while_it_arrives() -> None:
    async with serving() as server, clients(server) as opened:
        reader, writer = await opened()
        writer.write(HEAD + b"X-Long: ")
        await eventually_async(lambda: in_head(server))
        writer.write(b"a" * (MAX_HEAD_BYTES + 1))
        assert (await problem(reader))["code"] == "request_header_fields_too_large"


async def test_a_head_that_follows_an_unfinished_answer_is_bounded_too() -> None:
    async with serving() as server, clients(server) as opened:
        reader, writer = await opened()
        writer.write(HEAD.replace(b"/ ", b"/endless ") + b"\r\n")
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
        writer.write(HEAD + b"X-Long: " + b"a" * (4 * MAX_HEAD_BYTES))
        await eventually_async(lambda: gone(server))


async def test_a_client_that_does_not_read_its_answer_is_cut_off() -> None:
    async with serving(stalled_s=0.3) as server, clients(server) as opened:
        _, writer = await opened()
        writer.write(HEAD.replace(b"/ ", b"/endless ") + b"\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined] # asyncio's own transports have it
        await eventually_async(lambda: has_begun(server))
        await eventually_async(lambda: gone(server))


async def in_head(server: Serving) -> bool:
    return any(cast("BoundedProtocol", connection)._in_head for connection in server.state.connections)


async def has_begun(server: Serving) -> bool:
    return bool(server.state.tasks)


async def gone(server: Serving) -> bool:
    return not server.state.connections


async def test_no_more_clients_are_served_at_once_than_may_be() -> None:
    async with serving(connections=2) as server, clients(server) as opened:
        first, _ = await opened(), await opened()
        reader, _ = await opened()
        turned_away = await problem(reader)
        assert (turned_away["status"], turned_away["code"]) == (503, "too_many_connections")
        first[1].close()
        await first[1].wait_closed()
        reader, writer = await opened()
        writer.write(HEAD + b"\r\n")
        assert (await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), PATIENCE_S)).startswith(b"HTTP/1.1 200")


async def test_an_answer_of_known_length_arrives_whole_and_the_connection_goes_on() -> None:
    async with serving() as server, clients(server) as opened:
        reader, writer = await opened()
        for _ in range(2):
            writer.write(HEAD.replace(b"/ ", b"/whole ") + b"\r\n")
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"\r\ncontent-length: 2\r\nx-own: one\r\n" in head
            assert await asyncio.wait_for(reader.readexactly(2), PATIENCE_S) == b"ok"


async def test_an_answer_that_closes_the_connection_closes_it() -> None:
    async with serving() as server, clients(server) as opened:
        reader, writer = await opened()
        writer.write(HEAD.replace(b"/ ", b"/closing ") + b"\r\n")
        raw = await asyncio.wait_for(reader.read(), PATIENCE_S)
        assert raw.endswith(b"\r\n\r\nok")
        assert raw.lower().count(b"connection: close") == 1


@pytest.mark.parametrize("path", [path for path in HEADS if "-in-" in path])
async def test_of_an_answer_whose_header_would_break_out_of_its_line_nothing_is_sent(path: str) -> None:
    async with serving() as server, clients(server) as opened:
        reader, writer = await opened()
        writer.write(HEAD.replace(b"/ ", path.encode() + b" ") + b"\r\n")
        assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""
