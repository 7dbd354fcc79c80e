"""A bounded memory whose entries are believed for some seconds."""

import time
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class ShortMemory(Generic[K, V]):
    """Remembers up to `most` values, each for `seconds` from the moment on in which it was asked for."""

    def __init__(self, *, seconds: float, most: int) -> None:
        self._seconds = seconds
        self._most = most
        self._entries: dict[K, tuple[V, float]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        """Return what is remembered, or None."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        value, end = entry
        if end <= time.monotonic():
            self._entries.pop(key, None)
            return None
        return value

    def put(self, key: K, value: V, *, asked_at: float) -> None:
        """Remember a value that was true at `asked_at` (monotonic seconds); the oldest entry makes room."""
        self._entries.pop(key, None)
        if len(self._entries) >= self._most:
            self._entries.pop(next(iter(self._entries)))
        self._entries[key] = (value, asked_at + self._seconds)

    def forget(self, key: K) -> None:
        """Ask anew the next time."""
        self._entries.pop(key, None)
