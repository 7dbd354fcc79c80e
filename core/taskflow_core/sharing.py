"""Equal questions asked at the same time share one answer, which is never older than any of them."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

A = TypeVar("A")


class Shared(Generic[A]):
    """Runs one at a time for each key: who asks while a run is under way shares the next, which sees all it should."""

    def __init__(self) -> None:
        self._running: dict[Hashable, asyncio.Task[A]] = {}
        self._next: dict[Hashable, asyncio.Task[A]] = {}

    async def ask(self, key: Hashable, run: Callable[[], Coroutine[Any, Any, A]]) -> A:
        """Return what `run` returns, or the `run` of an equal question; a caller that leaves stops neither."""
        task = self._next.get(key)
        if task is None:
            task = self._next[key] = asyncio.create_task(self._after_the_last(key, run))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # none may wait
        return await asyncio.shield(task)

    async def _after_the_last(self, key: Hashable, run: Callable[[], Coroutine[Any, Any, A]]) -> A:
        if last := self._running.get(key):
            await asyncio.wait([last])
        task = self._running[key] = self._next.pop(key)  # from here on, who asks waits for the next
        try:
            return await run()
        finally:
            if self._running[key] is task:
                del self._running[key]
