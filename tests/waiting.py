"""Wait for something to become true, with a deadline."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
INTERVAL_S = 0.02


def eventually(check: Callable[[], T | None], timeout: float = 30.0) -> T:
    """Call `check` until it answers something true and return that; AssertionError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (answer := check()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not true within {timeout} s: {_source(check)}")
        time.sleep(INTERVAL_S)
    return answer


async def eventually_async(check: Callable[[], Awaitable[T | None]], timeout: float = 30.0) -> T:  # noqa: ASYNC109 polls
    """Await `check` until it answers something true and return that; AssertionError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (answer := await check()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not true within {timeout} s: {_source(check)}")
        await asyncio.sleep(INTERVAL_S)
    return answer


def _source(check: Callable[[], object]) -> str:
    try:
        return inspect.getsource(check).strip()
    except (OSError, TypeError):
        return repr(check)
