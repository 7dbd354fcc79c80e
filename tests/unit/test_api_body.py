"""Bodies are parsed strictly and read within bounds."""

import asyncio
import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from taskflow_api.body import MAX_DEPTH, BodyBounds, BodyLimit, parse
from taskflow_core.errors import BadJson, Invalid, TooLarge, WrongMediaType


def storable() -> st.SearchStrategy[Any]:
    text = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
    numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    leaves = st.none() | st.booleans() | numbers | text
    return st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(text, inner), max_leaves=30)


@given(storable())
def test_what_can_be_stored_is_read_as_it_is(value: Any) -> None:
    assert parse(json.dumps(value).encode()) == value


@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_a_value_or_a_named_error(raw: bytes) -> None:
    with contextlib.suppress(BadJson, Invalid):
        parse(raw)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('"\\u0000"', ""),
        ('{"a": [1, {"b": "x\\u0000"}]}', "a.1.b"),
        ('{"a": {"b\\u0000": 1}}', "a"),
        ('{"a": 18446744073709551616}', "a"),
        ('{"a": [-9223372036854775809]}', "a.0"),
        ('{"a": ' + "[" * MAX_DEPTH + "1" + "]" * MAX_DEPTH + "}", "a.0.0"),
    ],
)
def test_what_cannot_be_stored_is_named(text: str, field: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse(text.encode())
    assert [problem.field for problem in caught.value.fields] == [field]


@pytest.mark.parametrize(
    "text",
    [
        '"\\\\u0000"',
        '"0123456789012345678901234567890"',
        "18446744073709551615",
        "-9223372036854775808",
        "[" * MAX_DEPTH + "]" * MAX_DEPTH,
        "[" + "[]," * 200 + "[]]",
        "12345678901234567890.5",
    ],
)
def test_what_only_looks_odd_is_taken(text: str) -> None:
    assert parse(text.encode()) == json.loads(text)


async def run(
    limit: int, messages: list[Message], headers: dict[bytes, bytes] | None = None, *, timeout_s: float = 30
) -> bytes:
    """Send messages through the middleware to an app that reads its whole body."""
    received = bytearray()

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        more = True
        while more:
            message = await receive()
            received.extend(message.get("body", b""))
            more = message.get("more_body", False)

    async def receive() -> Message:
        if messages:
            return messages.pop(0)
        await asyncio.Event().wait()
        raise AssertionError("nothing comes")

    async def send(_message: Message) -> None:
        raise AssertionError("nothing is sent")

    scope = {"type": "http", "path": "/", "headers": list((headers or {}).items())}
    await BodyLimit(app, bounds=BodyBounds(limit, {}, timeout_s))(scope, receive, send)
    return bytes(received)


def piece(content: bytes, *, more: bool) -> Message:
    return {"type": "http.request", "body": content, "more_body": more}


async def test_a_body_up_to_its_bound_arrives_whole() -> None:
    assert await run(6, [piece(b"abc", more=True), piece(b"def", more=False)]) == b"abcdef"


async def test_a_byte_over_the_bound_is_too_large() -> None:
    with pytest.raises(TooLarge):
        await run(5, [piece(b"abc", more=True), piece(b"def", more=False)])


async def test_an_announced_length_over_the_bound_is_refused_before_anything_is_read() -> None:
    with pytest.raises(TooLarge):
        await run(5, [], {b"content-length": b"6"})


@pytest.mark.parametrize("coding", [b"gzip", b"deflate", b"br", b"zstd", b"GZIP, identity", b""])
async def test_a_body_that_is_packed_is_refused_before_anything_is_read(coding: bytes) -> None:
    with pytest.raises(WrongMediaType):
        await run(5, [], {b"content-encoding": coding})


async def test_a_body_that_stops_arriving_is_given_up() -> None:
    with pytest.raises(HTTPException) as caught:
        await run(5, [], timeout_s=0)
    assert caught.value.status_code == 408
