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
from itertools import count
from typing import Any

WARM_UP_S = 0.5


async def drive(plan: dict[str, Any]) -> dict[str, Any]:
    """Return how many requests were answered a second, the latencies in milliseconds, and the answers' statuses."""
    templates = [_template(plan, *request) for request in plan["requests"]]
    numbers = count(time.time_ns())
    spent: list[float] = []
    statuses: Counter[str] = Counter()
    begins = time.perf_counter() + WARM_UP_S
    ends = begins + plan["seconds"]

    async def connection(place: int) -> None:
        reader, writer = await asyncio.open_connection(plan["host"], plan["port"])
        turn = place
        while (sent := time.perf_counter()) < ends:
            template = templates[turn % len(templates)]
            turn += 1
            writer.write(template.replace(b"{n}", b"%d" % next(numbers)))
            status = await _answer(reader)
            now = time.perf_counter()
            if begins < sent and now < ends:
                spent.append(now - sent)
                statuses[status] += 1
        writer.close()

    await asyncio.gather(*(connection(place) for place in range(plan["connections"])))
    spent.sort()
    return {
        "rate": len(spent) / plan["seconds"],
        "p50": _at(spent, 0.5),
        "p99": _at(spent, 0.99),
        "statuses": dict(statuses),
    }


def _template(plan: dict[str, Any], method: str, path: str, headers: dict[str, str], body: str) -> bytes:
    # {n} is as long as what replaces it, or Content-Length would be wrong.
    length = len(body.replace("{n}", str(time.time_ns())).encode())
    lines = [f"{method} {path} HTTP/1.1", f"Host: {plan['host']}:{plan['port']}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {length}"]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


async def _answer(reader: asyncio.StreamReader) -> str:
    head = await reader.readuntil(b"\r\n\r\n")
    lower = head.lower()
    at = lower.find(b"content-length:")
    if at >= 0:
        await reader.readexactly(int(lower[at + 15 : lower.index(b"\r", at)]))
    elif b"transfer-encoding: chunked" in lower:
        while (size := int(await reader.readline(), 16)) > 0:
            await reader.readexactly(size + 2)
        await reader.readline()
    return head[9:12].decode()


def _at(ordered: list[float], part: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] * 1000 if ordered else 0.0


if __name__ == "__main__":
    import uvloop

    json.dump(uvloop.run(drive(json.load(sys.stdin))), sys.stdout)
