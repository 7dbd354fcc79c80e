"""One request as a value, and how its answer becomes a result: everything but sending it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from typing import Any, Generic, TypeVar
from urllib.parse import quote
from uuid import UUID, uuid4

from pydantic import BaseModel, JsonValue, TypeAdapter, ValidationError

from taskflow_client.errors import UnexpectedAnswer, problem

BASE = "/api/v1"
OUTSIDE = ("/health/", "/metrics")
KEY_HEADER = "Idempotency-Key"
BODY: TypeAdapter[Any] = TypeAdapter(JsonValue)

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer whose body has been read; `raw` is the open response of a stream instead."""

    status: int
    headers: Mapping[str, str]
    content: bytes = b""
    raw: Any = None

    @property
    def is_success(self) -> bool:
        """Whether the request was done."""
        return 200 <= self.status < 300

    @property
    def retry_after_s(self) -> float | None:
        """The seconds of the header Retry-After; None without one."""
        value = self.headers.get("retry-after", "")
        return float(value) if value.isdecimal() else None


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A request. It may be sent twice when `is_harmless`; `anonymous` ones carry no token."""

    method: str
    path: str
    parse: Callable[[Reply], T]
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    anonymous: bool = False
    timeout_s: float | None = None

    @property
    def address(self) -> str:
        """Return the path from the root of the server."""
        return self.path if self.path.startswith(OUTSIDE) else BASE + self.path

    @property
    def is_harmless(self) -> bool:
        """Whether a second sending does what one does."""
        return self.method == "GET" or KEY_HEADER in self.headers

    def after(self, cursor: str) -> "Call[T]":
        """Return the call for the next page."""
        return replace(self, query={**self.query, "cursor": cursor})

    def with_headers(self, **headers: str) -> "Call[T]":
        """Return the call with more headers; `last_event_id` stands for Last-Event-ID."""
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        return replace(self, headers={**self.headers, **more})

    def result(self, url: str, reply: Reply) -> T:
        """Return what the answer says.

        Raises:
            Problem: the request was refused.
            UnexpectedAnswer: the answer has another shape than the API gives it.
        """
        if not reply.is_success:
            raise problem(reply.status, _document(reply), retry_after_s=reply.retry_after_s)
        try:
            return self.parse(reply)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the body"
            raise UnexpectedAnswer(url + self.address, f"{where}: {first['msg']}") from None


def model(shape: type[M]) -> Callable[[Reply], M]:
    """Return what reads a body as a model."""
    return lambda reply: shape.model_validate_json(reply.content)


def nothing(_: Reply) -> None:
    """Read no body."""


def text(reply: Reply) -> str:
    """Read a body as text."""
    return reply.content.decode("utf-8", "replace")


def raw(reply: Reply) -> Any:
    """Return the open response of a stream."""
    return reply.raw


def given(**fields: Any) -> dict[str, Any]:
    """Return the fields that are not None, as JSON has them; a trailing underscore keeps a name from being reserved."""
    return {name.rstrip("_"): _plain(value) for name, value in fields.items() if value is not None}


def segment(value: object) -> str:
    """Return a value as one segment of a path."""
    return quote(str(value), safe="")


def key_headers(key: str | None) -> dict[str, str]:
    """Return the header that makes a request do its work once; without a key, with a new one."""
    return {KEY_HEADER: key or str(uuid4())}


def _plain(value: Any) -> Any:
    match value:
        case datetime():
            return value.isoformat()
        case UUID():
            return str(value)
        case Enum():
            return value.value
        case list() | tuple() | frozenset() | set():
            return [_plain(item) for item in value]
        case BaseModel():
            return value.model_dump(mode="json", exclude_unset=True)
        case Mapping():
            return {name: _plain(item) for name, item in value.items()}
        case _:
            return value


def _document(reply: Reply) -> Any:
    try:
        return BODY.validate_json(reply.content)
    except ValidationError:
        return None
