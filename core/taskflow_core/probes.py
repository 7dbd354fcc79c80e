"""A small HTTP server, in a thread of its own, for processes that serve nothing else: health and metrics.

Liveness proves progress: each loop stamps `Pulse.beat`, and a process whose loop stands still answers 503 although
its socket still works. Readiness says beside that the process has started; neither knows of load or of Redis, because a
ReplicaSet takes pods that are not ready away first.
"""

import threading
import time
from collections.abc import Iterable
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import make_wsgi_app


class Pulse:
    """When each named loop last moved, and how long it may stand still (seconds)."""

    def __init__(self, **bounds_s: float) -> None:
        self._bounds_s = bounds_s
        self._beats = dict.fromkeys(bounds_s, time.monotonic())
        self._started = False

    def started(self) -> None:
        """Say that the process is registered and its loops run: from now on it may be ready."""
        self._started = True

    def watch(self, loop: str, bound_s: float) -> None:
        """Watch one more loop."""
        self._bounds_s[loop], self._beats[loop] = bound_s, time.monotonic()

    def beat(self, loop: str) -> None:
        """Say that the loop moves."""
        self._beats[loop] = time.monotonic()

    def unready(self) -> list[str]:
        """Return why the process is not ready, empty when it is."""
        return self.stalled() if self._started else ["it is starting"]

    def stalled(self) -> list[str]:
        """Return the loops that stand still, each with for how long."""
        now = time.monotonic()
        return [
            f"{loop} has not moved for {now - self._beats[loop]:.0f} s"
            for loop, bound_s in self._bounds_s.items()
            if now - self._beats[loop] > bound_s
        ]


class _Quiet(WSGIRequestHandler):
    timeout = 5

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the class above
        """Log nothing: probes come every few seconds."""


def serve_probes(port: int, pulse: Pulse, *, host: str = "") -> WSGIServer | None:
    """Serve /health/live, /health/ready and /metrics at `port`, 0 for not at all, on `host` or on every address.

    Raises:
        OSError: the port is taken.
    """
    if port == 0:
        return None
    metrics = make_wsgi_app()
    checks = {"/health/live": pulse.stalled, "/health/ready": pulse.unready}

    def answer(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/metrics":
            body: Iterable[bytes] = metrics(environ, start)
            return body
        check = checks.get(environ["PATH_INFO"])
        if check is None:
            start("404 Not Found", [])
            return [b"try /health/live, /health/ready or /metrics\n"]
        wrong = check()
        start("503 Service Unavailable" if wrong else "200 OK", [])
        return ["\n".join(wrong or ["ok"]).encode() + b"\n"]

    server = make_server(host, port, answer, handler_class=_Quiet)
    threading.Thread(target=server.serve_forever, name="probes", daemon=True).start()
    return server
