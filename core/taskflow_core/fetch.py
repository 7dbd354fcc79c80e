"""HTTP requests to addresses that users give, guarded against reaching what only this network may reach.

A name is resolved once, inside the connection's own backend, and the socket is opened to the address that was
checked: there is no second look-up that could answer differently (DNS rebinding). Host header, SNI and certificate
check keep the name. Redirects are followed here, one by one, through the same check. No proxy, no cookies.
"""

import asyncio
import re
import socket
import ssl
import zlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from ipaddress import ip_address
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import httpcore2
import httpx2

from taskflow_core.addresses import AllowList

CONNECT_S = 5.0
TOTAL_S = 60.0
MAX_BYTES = 32 * 1024 * 1024
MAX_REDIRECTS = 5
MAX_WAIT = timedelta(hours=1)
GZIP = 16 + zlib.MAX_WBITS  # what zlib calls "with a gzip header"
HOST = re.compile(rb"[A-Za-z0-9._:-]+")  # a name, in its ASCII form, or an address without a zone
REDIRECTS = frozenset({301, 302, 303, 307, 308})
# What may follow a redirect to another origin; all else (Authorization, API keys, cookies) stays behind.
HARMLESS = frozenset({"accept", "user-agent", "if-none-match", "if-modified-since"})
USER_AGENT = "taskflow/0.1"


class FetchRefused(Exception):
    """The request must not be made, or its answer not be read: trying again does not help. `code` says why."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class FetchFailed(Exception):
    """The network or the server failed on the way; another try may do better."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A whole answer: its status, headers (case-insensitive), decoded body and the URL that gave it."""

    status: int
    headers: httpx2.Headers
    body: bytes
    url: str


class Backend(httpcore2.AsyncNetworkBackend):
    """Opens connections to checked addresses only."""

    def __init__(self, allow: AllowList, *, lookups: int) -> None:
        self._allow = allow
        self._inner = httpcore2.AnyIOBackend()
        # Threads of its own: a name server that never answers must not hold up the process's other look-ups.
        self._resolvers = ThreadPoolExecutor(lookups, thread_name_prefix="resolve")

    def close(self) -> None:
        """Wait for no look-up that is still under way."""
        self._resolvers.shutdown(wait=False, cancel_futures=True)

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 (the interface's own parameter)
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Resolve `host`, drop every address that is closed, connect to the first that answers.

        Raises:
            FetchRefused: no address is left.
            httpcore2.ConnectError: the name is unknown, or nothing answers.
        """
        failure: Exception = httpcore2.ConnectError(f"no address answers for {host}")
        for address in await self._open_addresses(host, port):
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        raise failure

    async def _open_addresses(self, host: str, port: int) -> list[str]:
        look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._resolvers, look_up)
        except (OSError, UnicodeError) as error:
            raise httpcore2.ConnectError(f"cannot resolve {host}") from error
        addresses = dict.fromkeys(str(entry[4][0]) for entry in found)
        opened = [address for address in addresses if self._allow.admits(host, port, ip_address(address))]
        if not opened:
            raise FetchRefused(
                f"{host} resolves to an address that is not public; an operator can open it with "
                "TASKFLOW_FETCH_ALLOW_HOSTS",
                code="address_refused",
            )
        return opened


class Client:
    """A guarded HTTP client: `async with Client(AllowList.parse(...)) as client`. Safe for concurrent requests.

    With `beginning_only`, the first `max_bytes` of an answer are enough, as they came; what follows is not read.
    """

    def __init__(
        self,
        allow: AllowList,
        *,
        max_bytes: int = MAX_BYTES,
        total_s: float = TOTAL_S,
        connections: int = 10,
        beginning_only: bool = False,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._max_bytes = max_bytes
        self._total_s = total_s
        self._beginning_only = beginning_only
        self._backend = Backend(allow, lookups=connections)
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=ssl_context,
            max_connections=connections,
            keepalive_expiry=5.0,
            network_backend=self._backend,
        )

    async def __aenter__(self) -> Self:
        await self._pool.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._backend.close()
        await self._pool.__aexit__(kind, error, trace)

    async def request(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, content: bytes | None = None
    ) -> Fetched:
        """Make one request within the total time; GET follows up to five redirects, other methods none.

        Raises:
            FetchRefused: the URL, its address, a redirect, the size or the encoding is not acceptable.
            FetchFailed: connecting, reading or the time failed.
        """
        try:
            async with asyncio.timeout(self._total_s):
                return await self._follow(method, url, dict(headers or {}), content)
        except TimeoutError as error:
            raise FetchFailed(f"no whole answer within {self._total_s:g} s") from error
        except (httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError) as error:
            raise FetchFailed(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__) from error

    async def _follow(self, method: str, url: str, headers: dict[str, str], content: bytes | None) -> Fetched:
        target = checked_url(url)
        for _ in range(MAX_REDIRECTS + 1):
            answer = await self._once(method, target, headers, content)
            location = answer.headers.get("location")
            if method != "GET" or answer.status not in REDIRECTS or location is None:
                return answer
            before, target = target, redirected(target, location)
            if not same_origin(before, target):
                headers = {name: value for name, value in headers.items() if name.lower() in HARMLESS}
        raise FetchRefused(f"more than {MAX_REDIRECTS} redirects", code="too_many_redirects")

    async def _once(self, method: str, url: httpx2.URL, headers: dict[str, str], content: bytes | None) -> Fetched:
        sent = httpx2.Headers({"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "gzip"})
        sent.update(headers)
        sent["Host"] = url.netloc.decode("ascii")
        async with self._pool.stream(
            method,
            httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=sent.raw,
            content=content,
            extensions={"timeout": {"connect": CONNECT_S, "read": self._total_s, "write": self._total_s}},
        ) as response:
            found = httpx2.Headers(response.headers)
            if self._beginning_only:
                return Fetched(response.status, found, await self._beginning(response), str(url))
            body = Body(found.get("content-encoding", "identity"), self._max_bytes)
            async for piece in response.aiter_stream():
                body.add(piece)
            return Fetched(response.status, found, body.whole(), str(url))

    async def _beginning(self, response: httpcore2.Response) -> bytes:
        held = bytearray()
        async for piece in response.aiter_stream():
            held += piece
            if len(held) >= self._max_bytes:
                break
        return bytes(held[: self._max_bytes])


class Body:
    """Collects an answer's body, plain or gzip, and stops at a bound of decoded bytes."""

    def __init__(self, encoding: str, max_bytes: int) -> None:
        encoding = encoding.strip().lower()
        if encoding not in {"", "identity", "gzip", "x-gzip"}:
            raise FetchRefused(f"the answer is encoded as {encoding[:50]!r}", code="unsupported_encoding")
        self._gzip = zlib.decompressobj(GZIP) if encoding.endswith("gzip") else None
        self._max_bytes = max_bytes
        self._held = bytearray()

    def add(self, piece: bytes) -> None:
        """Take a piece as it came over the wire. Raises FetchRefused when the body grows too large."""
        self._held += piece if self._gzip is None else self._inflated(self._gzip, piece)
        if len(self._held) > self._max_bytes:
            raise FetchRefused(f"the answer is larger than {self._max_bytes} bytes", code="response_too_large")

    def whole(self) -> bytes:
        """Return the whole body. Raises FetchFailed when the gzip stream was cut."""
        if self._gzip is not None and self._held and not self._gzip.eof:
            raise FetchFailed("the answer's gzip stream ends early")
        return bytes(self._held)

    def _inflated(self, stream: "zlib._Decompress", piece: bytes) -> bytearray:
        """Return the piece decoded, cut one byte after the bound; a body may be several gzip members (RFC 1952)."""
        room = self._max_bytes - len(self._held) + 1
        found = bytearray()
        try:
            while piece and len(found) < room:
                if stream.eof:
                    self._gzip = stream = zlib.decompressobj(GZIP)
                found += stream.decompress(piece, room - len(found))
                piece = stream.unused_data
        except zlib.error as error:
            raise FetchFailed("the answer is not valid gzip") from error
        return found


def checked_url(url: str) -> httpx2.URL:
    """Return the URL without its fragment if it may be called at all (its address is checked when connecting).

    Raises:
        FetchRefused: not http or https, no host or an impossible one, or a user name in it (credentials belong into a
            header).
    """
    try:
        parts = urlsplit(url)
        parsed = httpx2.URL(url).copy_with(fragment=None)
    except (httpx2.InvalidURL, ValueError, UnicodeError) as error:
        raise FetchRefused("the URL cannot be read", code="bad_url") from error
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise FetchRefused("the URL must start with http:// or https:// and name a host", code="bad_url")
    if not HOST.fullmatch(parsed.raw_host) or not 0 < _port(parsed) < 65_536:
        raise FetchRefused("the URL's host or port cannot be", code="bad_url")
    if parsed.userinfo or "@" in parts.netloc:
        raise FetchRefused("the URL holds a user name; put credentials into a header", code="bad_url")
    return parsed


def redirected(source: httpx2.URL, location: str) -> httpx2.URL:
    """Return where a redirect leads.

    Raises:
        FetchRefused: the URL must not be called, or leads from https to http.
    """
    try:
        target = checked_url(str(source.join(location)))
    except httpx2.InvalidURL as error:
        raise FetchRefused("a redirect's Location cannot be read", code="bad_redirect") from error
    if source.scheme == "https" and target.scheme == "http":
        raise FetchRefused("a redirect leads from https to http", code="bad_redirect")
    return target


def same_origin(one: httpx2.URL, other: httpx2.URL) -> bool:
    """Whether scheme, host and port of both URLs are the same."""
    return (one.scheme, one.host, _port(one)) == (other.scheme, other.host, _port(other))


def _port(url: httpx2.URL) -> int:
    return (443 if url.scheme == "https" else 80) if url.port is None else url.port


def retry_after(value: str | None, *, now: datetime) -> timedelta | None:
    """Return the wait that a Retry-After header asks for (seconds or a date), or None; at most MAX_WAIT."""
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return min(timedelta(seconds=min(int(value[:10]), 86_400)), MAX_WAIT)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max(moment - now, timedelta(0)), MAX_WAIT)
