"""The outermost middleware: request ids, security headers, the last answer to any error, one log line, metrics."""

import re
import time
from functools import partial
from secrets import token_hex

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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

# In a request's state: an ASGI app that is to go on with the answer once all that found and admitted the request has
# ended. The trail notes it, and leaves the rest to whoever was called first.
GOES_ON, REST = "goes_on", "rest_of_answer"

log = get_logger(__name__)


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
        answer = _Answer(scope, send)
        self._metrics.in_flight += 1
        structlog.contextvars.bind_contextvars(request_id=answer.request_id)  # each request is a task of its own
        await self._watch(self._app, scope, receive, answer)

    async def _watch(self, app: ASGIApp, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        rest: ASGIApp | None = None
        try:
            await app(scope, receive, answer.send)
            rest = scope["state"].pop(GOES_ON, None)
        except ClientDisconnect:
            answer.status = answer.status or CLIENT_LEFT
        except Exception as error:  # noqa: BLE001 - the last answer to whatever went wrong
            await answer.failed(error, receive)
        finally:
            if rest is not None:
                scope["state"][REST] = partial(self._watch, rest, answer=answer)
            else:
                self._metrics.in_flight -= 1
                self._finished(scope, answer.status, time.perf_counter() - answer.started)

    def _finished(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "(none)")
        state = scope["state"]
        timed = None if "held_open" in state else seconds
        self._metrics.request_finished(method=scope["method"], route=route, status=status, seconds=timed)
        if status in REFUSALS and "problem" in state:
            self._metrics.refused(state["problem"])
        write = log.debug if route in QUIET_ROUTES and status < 400 else log.info
        write(
            "request.finished",
            method=scope["method"],
            route=route,
            status=status,
            duration_ms=round(seconds * 1000, 2),
            user_id=state.get("user_id"),
        )


class _Answer:
    """The sending half of one request: adds headers, remembers the status."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.status = 0
        self.started = time.perf_counter()
        self.request_id = _request_id(scope)
        self._scope = scope
        self._send = send
        scope.setdefault("state", {})["request_id"] = self.request_id

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", ()), (b"x-request-id", self.request_id.encode())]
            if limit := self._scope["state"].get("rate_limit"):
                headers += zip((b"ratelimit", b"ratelimit-policy"), (value.encode() for value in limit), strict=True)
            there = {name for name, _ in headers}
            message["headers"] = headers + [header for header in SECURITY_HEADERS if header[0] not in there]
        await self._send(message)

    async def failed(self, error: Exception, receive: Receive) -> None:
        problem = describe(error)
        self._scope["state"]["problem"] = problem.code
        if problem.status == 503:
            log.warning("request.unavailable", error=type(error).__name__, reason=str(error).partition("\n")[0])
        elif problem.status >= 500:
            log.error("request.failed", error=type(error).__name__, exc_info=error)
        if self.status:
            raise error  # half an answer is out: only closing the connection can say that it is not whole
        await problem.response(self.request_id)(self._scope, receive, self.send)


async def finish(scope: Scope, receive: Receive) -> None:
    """Go on with an answer that holds nothing of the request any more: no headers, and nothing of the framework's."""
    if (rest := scope.get("state", {}).pop(REST, None)) is None:
        return
    kept = {name: scope[name] for name in KEPT if name in scope}
    scope.clear()
    scope.update(kept)
    await rest(scope, receive)


def _request_id(scope: Scope) -> str:
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"").decode("latin-1")
    return given if SANE_ID.fullmatch(given) else token_hex(16)
