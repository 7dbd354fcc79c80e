"""A collection of records over HTTP on this machine, for SYNC to pull: pages, an ETag, a pause a page."""

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
PAUSE_S = 0.25
PATH = "/products"
NAMES = ("Anvil", "Bellows", "Chisel", "Drill", "File")


class Source(ThreadingHTTPServer):
    """The server; `hits` counts the pages it sent, `not_modified` the times it said that nothing changed."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.records = [record(number) for number in range(1, RECORDS + 1)]
        self.etag = f'"{hashlib.sha256(json.dumps(self.records).encode()).hexdigest()[:16]}"'

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
        parts = urlsplit(self.path)
        number = (parse_qs(parts.query).get("page") or ["1"])[0]
        if parts.path != PATH or not number.isdecimal() or int(number) < 1:
            self._answer(HTTPStatus.NOT_FOUND, {"error": "no such page"})
        elif self.headers.get("If-None-Match") == self.server.etag:
            self._answer(HTTPStatus.NOT_MODIFIED, None)
        else:
            time.sleep(PAUSE_S)
            self._answer(HTTPStatus.OK, self.server.page(int(number)))

    def _answer(self, status: HTTPStatus, document: dict[str, Any] | None) -> None:
        body = b"" if document is None else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("ETag", self.server.etag)
        if document is not None:
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name http.server calls
        return
