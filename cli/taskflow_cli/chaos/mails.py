"""Which mails the catcher of the platform caught, by the task that sent them; it keeps only the newest thousand."""

import hashlib
from collections import Counter
from pathlib import Path
from uuid import UUID


class Mails:
    """Counts the mails in a folder, each file once, over as many looks as it takes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen = self._names()
        self._caught: Counter[str] = Counter()

    def look(self) -> None:
        """Count the mails that came since the last look; look at least once in a thousand mails."""
        names = self._names()
        self._caught.update(_digest_in(name) for name in names - self._seen)
        self._seen = names

    def count(self, task_id: UUID) -> int:
        """Return how many mails of that task were caught."""
        message_id = f"<{task_id}@taskflow>"
        return self._caught[hashlib.sha256(message_id.encode()).hexdigest()[:12]]

    @property
    def total(self) -> int:
        """Return how many mails were caught."""
        return self._caught.total()

    def _names(self) -> set[str]:
        return {path.name for path in self._folder.glob("*.eml")}


def _digest_in(name: str) -> str:
    return name.removesuffix(".eml").rpartition("-")[2]
