"""A collection of records over HTTP, for SYNC to pull: pages with an ETag and a pause each.

The demo serves it on this machine. Where workers may not fetch from here, as in containers, it runs beside them:
`python -m taskflow_cli.demo.source --host 0.0.0.0 --port 8080`.
"""

import argparse
import hashlib
import json
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

LOCALHOST = "127.0.0.1"
RECORDS = 200
PAGES = 5
PAUSE_S = 0.7  # a worker reports progress about once a second
PATH = "/products"
LIVE_PATH = "/health/live"
NAMES = ("Anvil", "Bellows", "Chisel", "Drill", "File")


class Source(ThreadingHTTPServer):
    """The server of the collection; port 0 picks a free one."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, host: str = LOCALHOST, port: int = 0) -> None:
        super().__init__((host, port), _Handler)
        self.records = [record(number) for number in range(1, RECORDS + 1)]

    @property
    def url(self) -> str:
        """The address of the collection's first page, on this machine."""
        return f"http://{LOCALHOST}:{self.server_port}{PATH}"

    def page(self, number: int) -> dict[str, Any]:
        """Return one page, from 1; past the last one it holds no items. The next page's address is relative."""
        size = RECORDS // PAGES
        after = f"{PATH}?page={number + 1}" if number < PAGES else None
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


def main(argv: Sequence[str] | None = None) -> None:
    """Serve the collection until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="source", description="Serve the records that the demo's SYNC pulls.")
    parser.add_argument("--host", default=LOCALHOST)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args(argv)
    with Source(arguments.host, arguments.port) as source:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: threading.Thread(target=source.shutdown).start())
        source.serve_forever(poll_interval=0.2)


class _Handler(BaseHTTPRequestHandler):
    server: Source
    protocol_version = "HTTP/1.1"
    timeout = 10

    def do_GET(self) -> None:
        """Answer with a page, or with 304 when the client has it."""
        parts = urlsplit(self.path)
        number = (parse_qs(parts.query).get("page") or ["1"])[0]
        if parts.path == LIVE_PATH:
            self._answer(HTTPStatus.OK, {"status": "ok"})
        elif parts.path != PATH or not number.isdecimal() or int(number) < 1:
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


if __name__ == "__main__":
    main()
