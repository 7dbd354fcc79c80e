"""A light HTTP client in a process of its own: `python client.py` reads a plan from standard input, answers in JSON.

The plan is {"host", "port", "connections", "seconds", "requests": [[method, path, headers, body], ...]}. Each
connection sends the requests in turn, one after the other; `{n}` in a header or body becomes a number that is never
used twice.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from itertools import count, cycle, islice
from typing import Any, cast

WARM_UP_S = 0.5
STALLED_S = 30.0
END = b"\r\n\r\n"


class Tally:
    """What all connections together sent and got between two moments."""

    def __init__(self, seconds: float) -> None:
        self.numbers = count(time.time_ns())
        self.begins = time.perf_counter() + WARM_UP_S
        self.ends = self.begins + seconds
        self.spent: list[float] = []
        self.statuses: Counter[bytes] = Counter()

    def answered(self, status: bytes, sent: float, now: float) -> None:
        """Count an answer whose whole time lies between the two."""
        if self.begins < sent and now < self.ends:
            self.spent.append(now - sent)
            self.statuses[status] += 1


class Connection(asyncio.Protocol):
    """Sends a request, reads its answer, sends the next."""

    def __init__(self, templates: Sequence[bytes], place: int, tally: Tally) -> None:
        self.closed = asyncio.get_running_loop().create_future()
        self._templates = islice(cycle(templates), place % len(templates), None)
        self._tally = tally
        self._got = b""
        self._sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport = cast("asyncio.Transport", transport)
        self._next()

    def data_received(self, data: bytes) -> None:
        """Go on when the answer is whole."""
        self._got = self._got + data if self._got else data
        if not _is_whole(self._got):
            return
        now = time.perf_counter()
        self._tally.answered(self._got[9:12], self._sent, now)
        self._got = b""
        if now < self._tally.ends:
            self._next()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Say whether the server hung up in the middle."""
        if time.perf_counter() < self._tally.ends:
            self.closed.set_exception(exc or ConnectionError("the server hung up"))
        elif not self.closed.done():
            self.closed.set_result(None)

    def _next(self) -> None:
        request = next(self._templates)
        self._sent = time.perf_counter()
        self._transport.write(request.replace(b"{n}", b"%d" % next(self._tally.numbers)))


async def drive(plan: dict[str, Any]) -> dict[str, Any]:
    """Return how many requests were answered a second, the latencies in milliseconds, and the answers' statuses."""
    templates = [_template(plan, *request) for request in plan["requests"]]
    loop, tally = asyncio.get_running_loop(), Tally(plan["seconds"])
    connections = [Connection(templates, place, tally) for place in range(plan["connections"])]
    async with asyncio.timeout(WARM_UP_S + plan["seconds"] + STALLED_S):
        for connection in connections:
            await loop.create_connection(lambda ready=connection: ready, plan["host"], plan["port"])
        await asyncio.gather(*(connection.closed for connection in connections))
    spent = sorted(tally.spent)
    return {
        "rate": len(spent) / plan["seconds"],
        "p50": _at(spent, 0.5),
        "p99": _at(spent, 0.99),
        "statuses": {status.decode(): times for status, times in tally.statuses.items()},
    }


def _template(plan: dict[str, Any], method: str, path: str, headers: dict[str, str], body: str) -> bytes:
    # {n} is as long as what replaces it, or Content-Length would be wrong.
    length = len(body.replace("{n}", str(time.time_ns())).encode())
    lines = [f"{method} {path} HTTP/1.1", f"Host: {plan['host']}:{plan['port']}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {length}"]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


def _is_whole(answer: bytes) -> bool:
    head = answer.find(END)
    if head < 0:
        return False
    lower = answer[: head + 2].lower()
    at = lower.find(b"content-length:")
    if at >= 0:
        return len(answer) >= head + len(END) + int(lower[at + 15 : lower.index(b"\r", at)])
    return b"transfer-encoding: chunked" not in lower or answer.endswith(b"0" + END)


def _at(ordered: list[float], part: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] * 1000 if ordered else 0.0


if __name__ == "__main__":
    import uvloop

    json.dump(uvloop.run(drive(json.load(sys.stdin))), sys.stdout)
