"""Where a login's tokens are kept, and that only one renewal goes on at a time: a refresh token works once."""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple, Protocol


class Tokens(NamedTuple):
    """An access token and the refresh token that gets the next one."""

    access: str
    refresh: str


class TokenStore(Protocol):
    """Keeps the tokens of one login. What changes them happens under `lock()`, and other processes may do it too."""

    def load(self) -> Tokens | None:
        """Return the tokens, or None without a login."""

    def save(self, tokens: Tokens | None) -> None:
        """Keep other tokens, or none."""

    def lock(self) -> AbstractContextManager[None]:
        """Keep others from changing the tokens until the block ends."""


class MemoryStore:
    """Tokens of this process alone; safe to share between threads."""

    def __init__(self, tokens: Tokens | None = None) -> None:
        self._tokens = tokens
        self._lock = threading.Lock()

    def load(self) -> Tokens | None:
        """Return the tokens, or None without a login."""
        return self._tokens

    def save(self, tokens: Tokens | None) -> None:
        """Keep other tokens, or none."""
        self._tokens = tokens

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other threads from changing the tokens until the block ends."""
        with self._lock:
            yield
