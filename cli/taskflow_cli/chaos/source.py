"""The source that the SYNC tasks pull from, on this machine: quick, slow, moody or refusing, as its path says."""

import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

PAGES = {"quick": 1, "moody": 1, "slow": 5}
PER_PAGE = 8
PAUSE_S = 0.4
MOOD = 0.4  # how often the moody source answers 503


def records_of(kind: str) -> int:
    """Return how many records a source of that kind holds."""
    return PAGES[kind] * PER_PAGE


class Source(ThreadingHTTPServer):
    """The server."""

    daemon_threads = True

    def __init__(self, seed: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.chance = random.Random(seed)  # noqa: S311 - to be repeatable is its point

    def url(self, kind: str) -> str:
        """Return the address of the source of that kind."""
        return f"http://127.0.0.1:{self.server_port}/{kind}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: workers that are killed leave their requests half done."""


@contextmanager
def serving(seed: int) -> Iterator[Source]:
    """Run the server in a thread until the block ends."""
    with Source(seed) as source:
        thread = threading.Thread(target=source.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield source
        finally:
            source.shutdown()
            thread.join(timeout=5)


class _Handler(BaseHTTPRequestHandler):
    server: Source
    protocol_version = "HTTP/1.1"
    timeout = 10

    def do_GET(self) -> None:
        """Answer with a page, or with what the kind of the source has in store."""
        parts = urlsplit(self.path)
        kind, page = parts.path.strip("/"), int((parse_qs(parts.query).get("page") or ["1"])[0])
        if kind not in PAGES:
            self._answer(HTTPStatus.NOT_FOUND, {})
        elif kind == "moody" and self.server.chance.random() < MOOD:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, {})
        else:
            if kind == "slow":
                time.sleep(PAUSE_S)
            items = [{"id": f"{page}-{number}", "value": number} for number in range(PER_PAGE)]
            following = f"{self.server.url(kind)}?page={page + 1}" if page < PAGES[kind] else None
            self._answer(HTTPStatus.OK, {"items": items, "next": following})

    def _answer(self, status: HTTPStatus, document: dict[str, object]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if status is HTTPStatus.SERVICE_UNAVAILABLE:
            self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name http.server calls
        return
