"""Child output: cut into lines of bounded length, safe for a terminal, and written to it or to a file."""

import asyncio
import sys
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TextIO

MAX_LINE = 4_000
MAX_FILE = 16 * 1024 * 1024
LAST_LINES = 20
NAME_WIDTH = 9
COLOURS = (36, 33, 32, 35, 34, 96, 93)


class Lines:
    """Cut a stream of bytes into lines; a line's part past the bound is dropped and marked."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[str]:
        """Return the lines that the chunk completes."""
        *whole, rest = (self._rest + chunk).split(b"\n")
        self._rest = rest[: MAX_LINE + 1]
        return [printable(line) for line in whole]

    def end(self) -> list[str]:
        """Return the last line when it lacks its newline."""
        rest, self._rest = self._rest, b""
        return [printable(rest)] if rest else []


def printable(line: bytes) -> str:
    """Return the line without anything that would steer a terminal."""
    text = line[:MAX_LINE].decode(errors="replace").rstrip("\r")
    safe = "".join(character if character.isprintable() or character == "\t" else "\ufffd" for character in text)
    return safe + " [cut]" if len(line) > MAX_LINE else safe


class Sink(Protocol):
    """Where lines go."""

    def write(self, line: str) -> None:
        """Take one line; never fails."""

    def close(self) -> None:
        """Take no more."""


class Terminal:
    """Print lines behind the name of their source; in colour on a terminal, and never fail when it is gone."""

    def __init__(self, name: str, number: int, *, colour: bool) -> None:
        prefix = f"{name:<{NAME_WIDTH}} |"
        self._prefix = f"\x1b[{COLOURS[number % len(COLOURS)]}m{prefix}\x1b[0m" if colour else prefix

    def write(self, line: str) -> None:
        """Print one line."""
        say(f"{self._prefix} {line}")

    def close(self) -> None:
        """Do nothing: the terminal is not ours to close."""


class File:
    """Write lines to a file that starts empty, and starts over when it is full."""

    def __init__(self, path: Path) -> None:
        self._file: TextIO = path.open("w", encoding="utf-8", buffering=1)

    def write(self, line: str) -> None:
        """Append one line; a full disk must not take the platform down."""
        with suppress(OSError):
            if self._file.tell() > MAX_FILE:
                self._file.seek(0)
                self._file.truncate()
            self._file.write(line + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Tail:
    """Pass lines on and remember the last ones, to show them when the child fails."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.last: deque[str] = deque(maxlen=LAST_LINES)

    def write(self, line: str) -> None:
        """Take one line."""
        self.last.append(line)
        self._sink.write(line)

    def close(self) -> None:
        """Close what the lines went to."""
        self._sink.close()


def say(text: str) -> None:
    """Print to standard output; a closed terminal or pipe must not take the platform down."""
    with suppress(OSError):
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


async def pump(stream: asyncio.StreamReader, sink: Sink) -> None:
    """Move the stream's lines into the sink until it ends."""
    lines = Lines()
    while chunk := await stream.read(64 * 1024):
        for line in lines.feed(chunk):
            sink.write(line)
    for line in lines.end():
        sink.write(line)
