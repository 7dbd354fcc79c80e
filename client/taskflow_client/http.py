"""What both clients do alike with the HTTP library: addresses, timeouts, and what a failure means."""

from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import httpx2

from taskflow_client.call import Call, Reply, raw
from taskflow_client.errors import UnexpectedAnswer
from taskflow_client.exchange import Lost, Policy, Send
from taskflow_client.stream import SILENCE_S, Reader

NOTHING_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
EVENT_STREAM = "text/event-stream"
PIECE = 64 * 1024


def settings(url: str, *, user_agent: str, trust_env: bool) -> dict[str, Any]:
    """Return the keyword arguments that make the library's client; redirects are not followed."""
    headers = {"User-Agent": user_agent or f"taskflow-client/{_version()}", "Accept": "application/json"}
    return {"base_url": url.rstrip("/"), "headers": headers, "trust_env": trust_env}


def parts(send: Send, policy: Policy) -> dict[str, Any]:
    """Return the keyword arguments that make the library's request."""
    made: dict[str, Any] = {
        "params": dict(send.query),
        "headers": dict(send.headers),
        "timeout": httpx2.Timeout(send.timeout_s, connect=min(policy.connect_timeout_s, send.timeout_s)),
    }
    return made if send.body is None else made | {"json": send.body}


def lost(error: httpx2.TransportError) -> Lost:
    """Return what a failure on the way means."""
    late = isinstance(error, httpx2.TimeoutException)
    reason = "no answer in time" if late else str(error) or type(error).__name__
    return Lost(reason, nothing_sent=isinstance(error, NOTHING_SENT))


def streaming(call: Call[Any], reader: Reader, *, left_s: float) -> Call[Any]:
    """Return the call that opens a stream, or opens it again where it was cut."""
    last = {"Last_Event_ID": reader.last_id} if reader.last_id else {}
    made = call.with_headers(Accept=EVENT_STREAM, **last)
    return replace(made, parse=raw, timeout_s=min(SILENCE_S, left_s))


def check_stream(reply: Reply, url: str) -> None:
    """Raise UnexpectedAnswer unless the answer is a stream of events."""
    kind = reply.headers.get("content-type", "")
    if not kind.startswith(EVENT_STREAM):
        raise UnexpectedAnswer(url, f"a stream was asked for, {kind or 'nothing'} was answered")


def _version() -> str:
    try:
        return version("taskflow-platform")
    except PackageNotFoundError:  # copied into another project
        return "0"
