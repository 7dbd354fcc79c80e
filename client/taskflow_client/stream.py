"""Server-sent events (HTML Standard, 9.2), read from pieces as they arrive, and where to go on after a cut."""

import json
import random
from typing import Any, NamedTuple

from taskflow_client.errors import UnexpectedAnswer, Unreachable

FINISHED = "finished"
END = "end"
NO_CONTENT = 204
SILENCE_S = 40.0  # the server pings every 15 s
LONGEST_PAUSE_S = 10.0
MAX_FRAME = 4 * 1024 * 1024
MAX_FAILURES = 8


class Frame(NamedTuple):
    """One event: its name, its JSON, and the id to go on after ("" when it has none of its own)."""

    kind: str
    data: Any
    id: str


class Reader:
    """The reading end of one stream over however many connections it takes."""

    def __init__(self, *, after: str = "") -> None:
        self.last_id = after
        self.started = False
        self.finished = False
        self._rest = b""
        self._pause_s = 1.0
        self._failures = 0

    def connected(self, status: int) -> None:
        """Start with a new connection: half an event of the old one is dropped, it comes again."""
        self._rest = b""
        self.started = True
        self.finished = status == NO_CONTENT  # nothing follows what was read already

    def feed(self, piece: bytes) -> list[Frame]:
        """Take in what arrived and return the events that are whole now.

        Raises:
            UnexpectedAnswer: an event is not JSON or too big to be one of the API's.
        """
        self._rest = (self._rest + piece).replace(b"\r\n", b"\n")
        *blocks, self._rest = self._rest.split(b"\n\n")
        if len(self._rest) > MAX_FRAME:
            raise UnexpectedAnswer("the stream", f"an event is over {MAX_FRAME} bytes")
        frames = [frame for frame in map(self._frame, blocks) if frame is not None]
        if not all(block.startswith(b"retry:") for block in blocks):  # a connection's first word says nothing yet
            self._failures = 0
        self.finished = self.finished or any(map(_is_end, frames))
        return [frame for frame in frames if frame.kind != END]

    def pause_s(self, url: str) -> float:
        """Return how long to wait before connecting again.

        Raises:
            Unreachable: too many connections in a row have brought nothing.
        """
        self._failures += 1
        if self._failures > MAX_FAILURES:
            raise Unreachable(url, f"the stream broke {MAX_FAILURES} times in a row")
        longest = min(LONGEST_PAUSE_S, self._pause_s * 1.5 ** (self._failures - 1))
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret

    def _frame(self, block: bytes) -> Frame | None:
        fields: dict[str, list[str]] = {}
        for line in block.decode("utf-8", "replace").split("\n"):
            name, _, value = line.partition(":")
            fields.setdefault(name, []).append(value.removeprefix(" "))
        if identifier := fields.get("id"):
            self.last_id = identifier[-1]
        if (retry := fields.get("retry")) and retry[-1].isdecimal():
            self._pause_s = min(LONGEST_PAUSE_S, int(retry[-1]) / 1000)
        if "data" not in fields:
            return None
        try:
            data = json.loads("\n".join(fields["data"]))
        except ValueError as error:
            raise UnexpectedAnswer("the stream", f"an event is not JSON: {error}") from None
        return Frame(fields.get("event", ["message"])[-1], data, identifier[-1] if identifier else "")


def _is_end(frame: Frame) -> bool:
    return frame.kind == END and isinstance(frame.data, dict) and frame.data.get("reason") == FINISHED
