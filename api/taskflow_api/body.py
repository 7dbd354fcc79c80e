"""Request bodies: read within a bound of bytes and time, parsed strictly, checked for what PostgreSQL cannot keep."""

import asyncio
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from taskflow_api.heads import header
from taskflow_core.errors import BadJson, FieldProblem, Invalid, TooLarge, WrongMediaType
from taskflow_core.validation import invalid

MAX_DEPTH = 64
PLAIN_JSON = "application/json"
JSON_TYPE = re.compile(r"application/(?:[a-z0-9.-]+\+)?json(?:\s*;.*)?", re.IGNORECASE)
LONG_INTEGER = re.compile(rb"[0-9]{19}")
MAX_DIGITS = 20
NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
SHOWN_DEPTH = 3
MAX_NAME = 200

# In a request's state: the body came with the head, as a whole. The protocol says so.
ARRIVED = "body_arrived"

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class BodyBounds:
    """At most `max_bytes` of body, counted while they arrive, within `timeout_s` in all.

    `larger` has the bounds of paths that take more.
    """

    max_bytes: int
    larger: Mapping[str, int]
    timeout_s: float

    def keep(self, scope: Scope, receive: Receive) -> Receive:
        """Return a `receive` that counts.

        Raises:
            TooLarge: the request says that its body is larger.
            WrongMediaType: the body is encoded.
        """
        max_bytes = self.larger.get(scope["path"], self.max_bytes)
        for name, value in scope["headers"]:
            if name == b"content-encoding" and value.lower() != b"identity":
                raise WrongMediaType("send the body as it is: no Content-Encoding is read here")
            if name == b"content-length" and value.isdigit() and int(value) > max_bytes:
                raise _too_large(max_bytes)
        counted = _whole if scope.get("state", {}).get(ARRIVED) else _counting
        return counted(receive, max_bytes, self.timeout_s)


class BodyLimit:
    """ASGI middleware that keeps bodies within their bounds."""

    def __init__(self, app: ASGIApp, *, bounds: BodyBounds) -> None:
        self._app = app
        self._bounds = bounds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with a `receive` that counts."""
        if scope["type"] == "http":
            receive = self._bounds.keep(scope, receive)
        await self._app(scope, receive, send)


def _whole(receive: Receive, max_bytes: int, _timeout_s: float) -> Receive:
    """Count a body that is here already: most are, and a timer for each would cost more than reading it."""

    async def counted() -> Message:
        message = await receive()
        if len(message.get("body", b"")) > max_bytes:
            raise _too_large(max_bytes)
        return message

    return counted


def _counting(receive: Receive, max_bytes: int, timeout_s: float) -> Receive:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    read = 0
    complete = False

    async def counted() -> Message:
        nonlocal read, complete
        if complete:
            return await receive()
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError:
            raise HTTPException(408, f"the body did not arrive within {timeout_s:g} s") from None
        read += len(message.get("body", b""))
        complete = not message.get("more_body", False)
        if read > max_bytes:
            raise _too_large(max_bytes)
        return message

    return counted


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(f"a body may hold at most {max_bytes} bytes")


async def read(request: Request, model: type[M], *, optional: bool = False) -> M:
    """Return the request's JSON body as a model; where it is `optional`, no body stands for an empty object.

    Raises:
        WrongMediaType: the Content-Type is not JSON.
        BadJson: the body is not JSON: NaN, lone surrogates and invalid UTF-8 included.
        Invalid: a field is wrong; names it.
    """
    body = await _bytes_of(request)
    if optional and not body:
        return model()
    kind = header(request.scope, b"content-type")
    if kind != PLAIN_JSON and JSON_TYPE.fullmatch(kind) is None:
        raise WrongMediaType("send JSON, with the header Content-Type: application/json")
    value = parse(body)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_input=False)) from None


async def _bytes_of(request: Request) -> bytes:
    """Return the whole body. As `request.body()`, without its detours."""
    chunks = []
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunks.append(message.get("body", b""))
        more = message.get("more_body", False)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def parse(body: bytes) -> Any:
    """Return the value of a JSON text that jsonb can store: no U+0000, no number out of range, bounded depth.

    Raises:
        BadJson: it is not JSON.
        Invalid: it is, but cannot be stored; names the field.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadJson(f"the body is not valid JSON: {error}") from None
    # Most bodies hold none of this, and these three looks at the bytes cost less than one at each value.
    if b"\\u0000" in body or _may_be_deep(body):
        _refuse_unstorable(value)
    if LONG_INTEGER.search(body):
        _refuse_unstorable(value)
        _refuse_unstorable(json.loads(body, parse_int=_integer))
    return value


def _may_be_deep(body: bytes) -> bool:
    """Whether the body may be nested too deep; one that is always may. Brackets in strings are taken for real ones."""
    if body.count(b"{") + body.count(b"[") <= MAX_DEPTH:
        return False
    brackets = body.translate(None, NO_BRACKETS)
    for _ in range(MAX_DEPTH // 2):  # each round takes one level off, or two
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    return brackets != b""


def _integer(digits: str) -> int | Decimal:
    """Return the integer, or infinity when it has more than 64 bits: orjson would round it without a word."""
    number = int(digits) if len(digits) <= MAX_DIGITS else 2**64
    return number if -(2**63) <= number < 2**64 else Decimal("inf")


def _refuse_unstorable(value: Any) -> None:
    for path, item in _walk(value):
        match item:
            case str() if "\0" in item:
                raise _refused(path, "must not hold the character U+0000")
            case Decimal():
                raise _refused(path, "has more than 64 bits; send it as a string")
            case dict() | list() if len(path) >= MAX_DEPTH:
                raise _refused(path[:SHOWN_DEPTH], f"is nested more than {MAX_DEPTH} levels deep")


def _walk(value: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every value and every key with the path to it."""
    waiting: list[tuple[tuple[str, ...], Any]] = [((), value)]
    while waiting:
        path, item = waiting.pop()
        yield path, item
        match item:
            case dict():
                for key, member in item.items():
                    waiting.append(((*path, key), member))
                    yield path, key
            case list():
                waiting.extend(((*path, str(index)), member) for index, member in enumerate(item))


def _refused(path: tuple[str, ...], why: str) -> Invalid:
    field = ".".join(path).replace("\0", "\\u0000")[:MAX_NAME]
    return Invalid("the body holds what cannot be stored", [FieldProblem(field, why)])
