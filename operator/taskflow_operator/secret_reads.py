"""Reads Secrets one by one, each once for all clusters that name it. The operator may neither list nor watch them."""

import asyncio
import random
import time
from collections.abc import Awaitable
from dataclasses import dataclass

from taskflow_operator.cluster import KubernetesApi
from taskflow_operator.kinds import SECRET, Body

FRESH_S = 30.0  # so soon a rotated Secret is seen


@dataclass(frozen=True, slots=True)
class _Read:
    answer: asyncio.Task[Body | None]
    asked_at: float
    fresh_s: float

    def serves(self, within_s: float) -> bool:
        """Whether the answer is no error, and young enough for who asks now."""
        if self.answer.done() and (self.answer.cancelled() or self.answer.exception()):
            return False
        return time.monotonic() - self.asked_at < min(within_s, self.fresh_s)


class SecretReads:
    """The Secrets that were read lately, with no more than their data."""

    def __init__(self, api: KubernetesApi) -> None:
        self._api = api
        self._known: dict[tuple[str, str], _Read] = {}

    def ask(self, namespace: str, name: str, *, within_s: float = FRESH_S) -> Awaitable[Body | None]:
        """Return what will hold the Secret as it was at most so many seconds ago, None when there is none.

        Raises, when it is awaited:
            ApiFailure: the API server does not answer, or forbids it.
        """
        known = self._known.get((namespace, name))
        if known is None or not known.serves(within_s):
            self._forget_old()
            fresh_s = FRESH_S * random.uniform(0.8, 1.2)  # noqa: S311 - jitter
            known = _Read(asyncio.create_task(self._read(namespace, name)), time.monotonic(), fresh_s)
            self._known[namespace, name] = known
        return asyncio.shield(known.answer)  # one who gives up takes it from no other

    async def _read(self, namespace: str, name: str) -> Body | None:
        found = await self._api.get(SECRET, namespace, name)
        if found is None:
            return None
        metadata = {key: found["metadata"][key] for key in ("uid", "resourceVersion")}
        return {"metadata": metadata, "data": found.get("data") or {}}

    def _forget_old(self) -> None:
        """Keep nothing that no cluster has asked for lately."""
        cutoff = time.monotonic() - 2 * FRESH_S
        self._known = {key: read for key, read in self._known.items() if read.asked_at > cutoff}
