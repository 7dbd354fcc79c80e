"""kopf's part: it watches, and every event only goes into the store and wakes the cluster's loop.

No handler changes an object, so kopf adds no finalizer and no annotation, and an uninstall has nothing to wait for.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import Any

import kopf
from kopf._core.reactor.inventory import ResourceMemories, ResourceMemory

from taskflow_core.logs import get_logger
from taskflow_operator.cluster import ApiFailure, KubernetesApi
from taskflow_operator.kinds import CLUSTER, MADE, OPTIONAL, POD, Body, Kind
from taskflow_operator.loops import Loops
from taskflow_operator.names import CLUSTER_LABEL
from taskflow_operator.store import Place, Store, place_and_key

RETRY_S = 2.0
SILENCE_S = 120  # bookmarks come about once a minute: a watch that says nothing for longer has stalled
CHUNK = 50  # kopf lists all kinds at the same time
WATCHED = (CLUSTER, *MADE, POD)

log = get_logger(__name__)


class Watches:
    """Feeds the store from kopf's watches, and from a list of everything now and then."""

    def __init__(self, api: KubernetesApi, store: Store, loops: Loops, namespaces: Collection[str]) -> None:
        self._api = api
        self._store = store
        self._loops = loops
        self._scopes: list[str | None] = [*namespaces] or [None]

    async def first_look(self) -> None:
        """List everything, for ever until that works: right after its creation a CRD is not served yet."""
        while True:
            try:
                await self.refresh()
            except ApiFailure as failure:
                log.warning("clusters.unreadable", reason=str(failure), hint="is the CRD installed, and RBAC granted?")
                await asyncio.sleep(RETRY_S * random.uniform(0.8, 1.2))  # noqa: S311 - jitter
            else:
                return

    async def keep_fresh(self, every_s: float) -> None:
        """List everything again for ever, in case a watch missed something."""
        while True:
            await asyncio.sleep(every_s * random.uniform(0.8, 1.2))  # noqa: S311 - jitter
            try:
                await self.refresh()
            except ApiFailure as failure:
                log.warning("refresh.failed", reason=str(failure))

    async def refresh(self) -> None:
        """List everything that is watched and take it over.

        Raises:
            ApiFailure: a kind cannot be listed.
        """
        changed: set[Place] = set()
        try:
            for kind in (*WATCHED[1:], *OPTIONAL, CLUSTER):
                await self._take_over(kind, changed)
        finally:
            for place in changed:
                self._loops.poke(place)

    async def _take_over(self, kind: Kind, changed: set[Place]) -> None:
        before = self._store.versions(kind.name)
        there = set()
        try:
            async for body in self._list(kind):
                there.add(place_and_key(body))
                if (place := self._store.put(body)) is not None:
                    changed.add(place)
        except ApiFailure as failure:
            if failure.status != 404 or kind not in OPTIONAL:
                raise
        changed |= self._store.sweep(kind.name, before, there)

    async def _list(self, kind: Kind) -> AsyncIterator[Body]:
        label = "" if kind is CLUSTER else CLUSTER_LABEL
        for scope in self._scopes:
            async for body in self._api.list(kind, scope, labels=label):
                yield body

    def registry(self) -> kopf.OperatorRegistry:
        """Return kopf's registry with our handlers in it."""
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry, retries=5)(self._login)
        for kind in WATCHED:
            kopf.on.event(kind.group, kind.api_version.rpartition("/")[2], kind.plural, registry=registry)(
                self._handler(kind)
            )
        return registry

    async def _login(self, **_: object) -> kopf.ConnectionInfo:
        return kopf.ConnectionInfo(**await self._api.login())

    def _handler(self, kind: Kind) -> Callable[..., Awaitable[None]]:
        # A handler that is not async would run in a thread, beside the loops.
        async def seen(*, body: kopf.Body, type: str | None, **_: object) -> None:  # noqa: A002 - kopf's name
            self._take({"apiVersion": kind.api_version, "kind": kind.name, **body}, deleted=type == "DELETED")

        return seen

    def _take(self, body: Body, *, deleted: bool) -> None:
        own_status = self._is_only_our_status(body)
        place = self._store.drop(body) if deleted else self._store.put(body)
        if place is not None and not own_status:
            self._loops.poke(place)

    def _is_only_our_status(self, body: Body) -> bool:
        """Whether a cluster changed in its status alone: our own write must not wake us."""
        if body["kind"] != CLUSTER.name:
            return False
        known = self._store.cluster(Place(body["metadata"]["namespace"], body["metadata"]["name"]))
        return known is not None and all(
            known["metadata"].get(field) == body["metadata"].get(field)
            for field in ("uid", "generation", "annotations", "labels", "deletionTimestamp")
        )


def kopf_settings() -> kopf.OperatorSettings:
    """Return kopf's settings: no peering, no events, no scan of the cluster, and a bound for each wait."""
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.process.ultimate_exiting_timeout = 30
    settings.networking.request_timeout = 15
    settings.networking.connect_timeout = 5
    settings.networking.error_backoffs = (0.5, 1, 2, 4)
    settings.queueing.idle_timeout = 0.1  # kopf has a worker for each object, which keeps the last event so long
    settings.watching.chunk_size = CHUNK
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.connect_timeout = 5
    settings.watching.inactivity_timeout = SILENCE_S
    settings.watching.reconnect_backoff = 0.5
    for kind in (*MADE, *OPTIONAL, POD):
        version = kind.api_version.rpartition("/")[2]
        settings.watching.label_selectors[kind.group, version, kind.plural] = CLUSTER_LABEL
    return settings


class NoMemories(ResourceMemories):
    """kopf's memory of each object, which only its own kinds of handlers need: none is kept."""

    async def recall(self, raw_body: kopf.RawBody, **options: Any) -> ResourceMemory:
        """Return a new memory."""
        return await super().recall(raw_body, **{**options, "ephemeral": True})


def quieten_kopf() -> None:
    """Let kopf log what is worth a look: it writes a line for each event it hands over."""
    logging.getLogger("kopf").setLevel(logging.WARNING)
