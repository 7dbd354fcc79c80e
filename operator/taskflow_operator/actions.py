"""Carries out what a plan says, and remembers what became of it for the next look."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from taskflow_core.logs import get_logger
from taskflow_operator import metrics
from taskflow_operator.cluster import ApiFailure, KubernetesApi, PoolCluster
from taskflow_operator.kinds import EVENT, Body, Kind, kind_of
from taskflow_operator.names import CLUSTER_LABEL
from taskflow_operator.observed import Key, Refusal, fingerprint, key_of, stamp_of
from taskflow_operator.plan import Action, Apply, Delete
from taskflow_operator.scaler import Stale
from taskflow_operator.store import Place, Store

TRY_AGAIN_S = 30.0
REFUSALS = frozenset({400, 403, 404, 405, 413, 422})

log = get_logger(__name__)


@dataclass(slots=True)
class Memory:
    """What became of earlier actions; names in others' hands and refusals are tried again after TRY_AGAIN_S seconds."""

    settled: dict[Key, str] = field(default_factory=dict)
    taken: dict[Key, float] = field(default_factory=dict)
    refused: dict[Key, tuple[Refusal, float]] = field(default_factory=dict)

    def current_taken(self) -> set[Key]:
        """Return the names that were seen in others' hands lately."""
        self.taken = {key: until for key, until in self.taken.items() if until > time.monotonic()}
        return set(self.taken)

    def current_refusals(self) -> Mapping[Key, Refusal]:
        """Return what the API server refused lately."""
        self.refused = {key: item for key, item in self.refused.items() if item[1] > time.monotonic()}
        return {key: refusal for key, (refusal, _) in self.refused.items()}


class Actor:
    """Acts for one cluster."""

    def __init__(self, api: KubernetesApi, store: Store, place: Place, memory: Memory) -> None:
        self._api = api
        self._store = store
        self._place = place
        self._memory = memory
        self._pools = PoolCluster(api, place.namespace)

    async def perform(self, actions: Sequence[Action]) -> None:
        """Carry out actions in their order. What is refused, or changed meanwhile, waits for the next look.

        Raises:
            ApiFailure: the API server cannot be asked.
        """
        for action in actions:
            if isinstance(action, Apply):
                await self._apply(action)
            elif isinstance(action, Delete):
                await self._api.delete(action.kind, self._place.namespace, action.name, action.uid)
                self._store.forget(self._place, Key(action.kind.name, action.name), action.uid)
                metrics.WRITES.labels("delete").inc()
            else:
                try:
                    await self._pools.set_replicas(action.name, action.replicas, action.resource_version)
                    metrics.WRITES.labels("scale").inc()
                except Stale:
                    log.info("scale.stale", deployment=action.name, namespace=self._place.namespace)

    async def tell(self, event: Body) -> None:
        """Post an event; one that is lost changes nothing."""
        try:
            await self._api.create(EVENT, event)
        except ApiFailure as failure:
            log.warning("event.lost", reason=str(failure), message=event["message"])

    async def _apply(self, action: Apply) -> None:
        manifest, key, kind = action.manifest, key_of(action.manifest), kind_of(action.manifest)
        try:
            if action.uid is None and await self._is_there(key, manifest):
                return
            expected = {"uid": action.uid} if action.uid else {}
            sent = manifest | {"metadata": manifest["metadata"] | expected}
            made = await self._bring(kind, sent)
        except ApiFailure as failure:
            if failure.status == 409:  # the object changed hands since it was seen: look again
                self._forget(key, action.uid)
                return
            if failure.status not in REFUSALS:
                raise
            served = f"it does not serve {kind.plural}.{kind.group}: install what brings them, or do without"
            refusal = Refusal(stamp_of(manifest), served if failure.status == 404 else failure.message)
            self._memory.refused[key] = (refusal, time.monotonic() + TRY_AGAIN_S)
            log.warning("manifest.refused", object=str(key), namespace=self._place.namespace, reason=str(failure))
            return
        self._memory.refused.pop(key, None)
        self._memory.settled[key] = fingerprint(made)
        self._store.put(made)
        metrics.WRITES.labels("apply").inc()
        log.info("manifest.applied", object=str(key), namespace=self._place.namespace)

    async def _bring(self, kind: Kind, manifest: Body) -> Body:
        """Apply; where that is refused because of what others put into a list, replace the lists.

        An apply merges lists by key: a port that somebody renumbered would stand beside ours under the same name.
        """
        try:
            return await self._api.apply(kind, manifest)
        except ApiFailure as failure:
            metadata = manifest["metadata"]
            if failure.status != 422 or "uid" not in metadata or "spec" not in manifest:
                raise
            change = {"metadata": {"uid": metadata["uid"]}, "spec": manifest["spec"]}
            await self._api.merge(kind, self._place.namespace, metadata["name"], change)
            return await self._api.apply(kind, manifest)

    async def _is_there(self, key: Key, manifest: Body) -> bool:
        """Whether an object of that name exists that no watch told of; it is not ours to overwrite."""
        found = await self._api.get(kind_of(manifest), self._place.namespace, key.name)
        if found is None:
            return False
        if found["metadata"].get("labels", {}).get(CLUSTER_LABEL) == self._place.name:
            self._store.put(found)  # the next look says whose it is
        else:
            self._memory.taken[key] = time.monotonic() + TRY_AGAIN_S
        return True

    def _forget(self, key: Key, uid: str | None) -> None:
        if uid is not None:
            self._store.forget(self._place, key, uid)
