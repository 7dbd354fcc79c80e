"""The outermost middleware: request ids, security headers, the last answer to any error, one log line, metrics."""

import re
import time
from collections.abc import Iterable
from functools import partial
from secrets import token_hex
from typing import TypeAlias

import structlog
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from taskflow_api.heads import header
from taskflow_api.metrics import Metrics
from taskflow_api.problems import describe
from taskflow_core.logs import get_logger

SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
REFUSALS = frozenset({429, 503})
CLIENT_LEFT = 499  # nobody reads the answer any more; the number nginx made common
KEPT = ("type", "http_version", "method", "path", "query_string", "client", "route", "state")  # logs want no more
QUIET_ROUTES = frozenset({"/health/live", "/health/ready", "/metrics"})
# As they go over the wire: each answer has them.
SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
)
NAMES = frozenset(name for name, _ in SECURITY_HEADERS)

# In a request's state: an ASGI app that is to go on with the answer once all that found and admitted the request has
# ended. The trail notes it, and leaves the rest to whoever was called first.
GOES_ON, REST = "goes_on", "rest_of_answer"

Header: TypeAlias = tuple[bytes, bytes]

log = get_logger(__name__)


class Visit:
    """One request on its way: its id, when it came, and the status of its answer."""

    __slots__ = ("_scope", "request_id", "started", "status")

    def __init__(self, scope: Scope) -> None:
        self.status = 0
        self.started = time.perf_counter()
        self.request_id = _request_id(scope)
        self._scope = scope
        scope.setdefault("state", {})["request_id"] = self.request_id

    def head(self, headers: Iterable[Header]) -> list[Header]:
        """Return an answer's headers with those that each answer has."""
        whole = [*headers, (b"x-request-id", self.request_id.encode())]
        if limit := self._scope["state"].get("rate_limit"):
            whole += ((b"ratelimit", limit[0].encode()), (b"ratelimit-policy", limit[1].encode()))
        there = {name for name, _ in whole}
        if there.isdisjoint(NAMES):
            return [*whole, *SECURITY_HEADERS]
        return whole + [header for header in SECURITY_HEADERS if header[0] not in there]

    def problem(self, error: Exception) -> Response:
        """Return the last answer to whatever went wrong."""
        problem = describe(error)
        self._scope["state"]["problem"] = problem.code
        if problem.status == 503:
            log.warning("request.unavailable", error=type(error).__name__, reason=str(error).partition("\n")[0])
        elif problem.status >= 500:
            log.error("request.failed", error=type(error).__name__, exc_info=error)
        return problem.response(self.request_id)


class RequestTrail:
    """ASGI middleware that gives each request an id and leaves one `request.finished` line behind it."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, whatever happens inside."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        visit = begin(scope, self._metrics)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                visit.status = message["status"]
                message["headers"] = visit.head(message.get("headers", ()))
            await send(message)

        await self._watch(self._app, scope, receive, answer, visit)

    async def _watch(self, app: ASGIApp, scope: Scope, receive: Receive, answer: Send, visit: Visit) -> None:
        rest: ASGIApp | None = None
        try:
            await app(scope, receive, answer)
            rest = scope["state"].pop(GOES_ON, None)
        except ClientDisconnect:
            visit.status = visit.status or CLIENT_LEFT
        except Exception as error:
            problem = visit.problem(error)
            if visit.status:
                raise  # half an answer is out: only closing the connection can say that it is not whole
            await problem(scope, receive, answer)
        finally:
            if rest is not None:
                scope["state"][REST] = partial(self._watch, rest, answer=answer, visit=visit)
            else:
                end(scope, visit, self._metrics)


def begin(scope: Scope, metrics: Metrics) -> Visit:
    """Note that a request came; each is a task of its own, whose log lines have its id."""
    visit = Visit(scope)
    metrics.in_flight += 1
    structlog.contextvars.bind_contextvars(request_id=visit.request_id)
    return visit


def end(scope: Scope, visit: Visit, metrics: Metrics) -> None:
    """Count a request that was answered, and write its line."""
    seconds = time.perf_counter() - visit.started
    metrics.in_flight -= 1
    route = getattr(scope.get("route"), "path", "(none)")
    state, status = scope["state"], visit.status
    timed = None if "held_open" in state else seconds
    metrics.request_finished(method=scope["method"], route=route, status=status, seconds=timed)
    if status in REFUSALS and "problem" in state:
        metrics.refused(state["problem"])
    write = log.debug if route in QUIET_ROUTES and status < 400 else log.info
    write(
        "request.finished",
        method=scope["method"],
        route=route,
        status=status,
        duration_ms=round(seconds * 1000, 2),
        user_id=state.get("user_id"),
    )


async def finish(scope: Scope, receive: Receive) -> None:
    """Go on with an answer that holds nothing of the request any more: no headers, and nothing of the framework's."""
    if (rest := scope.get("state", {}).pop(REST, None)) is None:
        return
    kept = {name: scope[name] for name in KEPT if name in scope}
    scope.clear()
    scope.update(kept)
    await rest(scope, receive)


def _request_id(scope: Scope) -> str:
    given = header(scope, b"x-request-id")
    return given if given and SANE_ID.fullmatch(given) else token_hex(16)
