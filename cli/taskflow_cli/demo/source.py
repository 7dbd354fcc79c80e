"""A collection of records over HTTP on this machine, for SYNC to pull: pages with an ETag and a pause each."""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

RECORDS = 200
PAGES = 5
PAUSE_S = 0.7  # a worker reports progress about once a second
PATH = "/products"
NAMES = ("Anvil", "Bellows", "Chisel", "Drill", "File")


class Source(ThreadingHTTPServer):
    """The server of the collection."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.records = [record(number) for number in range(1, RECORDS + 1)]

    @property
    def url(self) -> str:
        """The address of the collection's first page."""
        return f"http://127.0.0.1:{self.server_port}{PATH}"

    def page(self, number: int) -> dict[str, Any]:
        """Return one page, from 1; past the last one it holds no items."""
        size = RECORDS // PAGES
        after = f"{self.url}?page={number + 1}" if number < PAGES else None
        return {"items": self.records[(number - 1) * size : number * size], "next": after, "total": RECORDS}


@contextmanager
def serving() -> Iterator[Source]:
    """Run the server in a thread until the block ends."""
    with Source() as source:
        thread = threading.Thread(target=source.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield source
        finally:
            source.shutdown()
            thread.join(timeout=5)


def record(number: int) -> dict[str, Any]:
    """Return the product of that number, always the same."""
    return {
        "sku": f"SKU-{number:04}",
        "name": f"{NAMES[number % len(NAMES)]} {number}",
        "price": 100 + number * 7 % 900,
    }


class _Handler(BaseHTTPRequestHandler):
    server: Source
    protocol_version = "HTTP/1.1"
    timeout = 10

    def do_GET(self) -> None:
        """Answer with a page, or with 304 when the client has it."""
        parts = urlsplit(self.path)
        number = (parse_qs(parts.query).get("page") or ["1"])[0]
        if parts.path != PATH or not number.isdecimal() or int(number) < 1:
            self._answer(HTTPStatus.NOT_FOUND, {"error": "no such page"})
        else:
            time.sleep(PAUSE_S)
            self._answer(HTTPStatus.OK, self.server.page(int(number)))

    def _answer(self, status: HTTPStatus, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        is_known = self.headers.get("If-None-Match") == etag
        self.send_response(HTTPStatus.NOT_MODIFIED if is_known else status)
        self.send_header("ETag", etag)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(b"" if is_known else body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name http.server calls
        return
