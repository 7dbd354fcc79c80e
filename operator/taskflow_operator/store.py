"""What the watches told: clusters, their children and their pods, as compact JSON; never newer than the API server."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

import orjson

from taskflow_operator.kinds import CLUSTER, POD, Body
from taskflow_operator.names import CLUSTER_LABEL, COMPONENT_LABEL, DELETION_COST, POOL_LABEL
from taskflow_operator.observed import Key, key_of

POD_METADATA = ("name", "uid", "creationTimestamp", "deletionTimestamp")
POD_LABELS = (CLUSTER_LABEL, COMPONENT_LABEL, POOL_LABEL)
CONDITION = ("type", "status", "reason", "message", "lastTransitionTime")
CONTAINER = ("image", "state", "lastState")


class Place(NamedTuple):
    """Where a cluster is."""

    namespace: str
    name: str


@dataclass(slots=True)
class Entry:
    """An object: what tells it from its earlier and later selves, and the rest packed."""

    uid: str
    version: str
    packed: bytes

    def is_older_than(self, metadata: Body) -> bool:
        """Whether the object with that metadata is newer, or another one of the same name."""
        version = str(metadata.get("resourceVersion", ""))
        if self.uid != metadata["uid"] or not (self.version.isdecimal() and version.isdecimal()):
            return self.version != version
        return int(self.version) < int(version)


@dataclass(slots=True)
class Shelf:
    """The objects of one cluster; every change of them has a `version` that the store never used before."""

    entries: dict[Key, Entry] = field(default_factory=dict)
    version: int = 0

    def bodies(self) -> Iterator[tuple[Key, Body]]:
        """Yield all objects."""
        for key, entry in self.entries.items():
            yield key, orjson.loads(entry.packed)


class Store:
    """All that is known, by cluster. Objects are told apart by the label that names their cluster."""

    def __init__(self) -> None:
        self._clusters: dict[Place, Entry] = {}
        self._shelves: dict[Place, Shelf] = {}
        self._versions = count(1)

    def cluster(self, place: Place) -> Body | None:
        """Return a TaskFlowCluster as it was last seen, or None when there is none."""
        known = self._clusters.get(place)
        if known is None:
            return None
        body: Body = orjson.loads(known.packed)
        return body

    def shelf(self, place: Place) -> Shelf:
        """Return the shelf of a cluster, empty when nothing is known."""
        return self._shelves.get(place, Shelf())

    def put(self, body: Body) -> Place | None:
        """Keep an object; return whose it is, or None when it is old news."""
        if body["kind"] == CLUSTER.name:
            return self._put_cluster(body)
        metadata = body["metadata"]
        place = _place_of(metadata)
        if place is None:
            return None
        shelf = self._shelves.setdefault(place, Shelf())
        key = key_of(body)
        known = shelf.entries.get(key)
        if known is not None and not known.is_older_than(metadata):
            return None
        shelf.entries[key] = _entry(body)
        shelf.version = next(self._versions)
        return place

    def drop(self, body: Body) -> Place | None:
        """Forget an object that is gone; return whose it was, or None when another of that name is known."""
        metadata = body["metadata"]
        if body["kind"] == CLUSTER.name:
            place = Place(metadata["namespace"], metadata["name"])
            known = self._clusters.get(place)
            if known is None or known.uid != metadata["uid"]:
                return None
            del self._clusters[place]
            return place
        labelled = _place_of(metadata)
        return None if labelled is None else self.forget(labelled, key_of(body), metadata["uid"])

    def forget(self, place: Place, key: Key, uid: str) -> Place | None:
        """Forget an object of a cluster; return the cluster when that changes anything."""
        shelf = self._shelves.get(place)
        known = shelf.entries.get(key) if shelf else None
        if shelf is None or known is None or known.uid != uid:
            return None
        del shelf.entries[key]
        shelf.version = next(self._versions)
        if not shelf.entries and place not in self._clusters:
            del self._shelves[place]
        return place

    def versions(self, kind: str) -> dict[tuple[Place, Key], str]:
        """Return the version of every object of a kind, for `sweep`."""
        if kind == CLUSTER.name:
            return {(place, Key(kind, place.name)): entry.version for place, entry in self._clusters.items()}
        return {
            (place, key): entry.version
            for place, shelf in self._shelves.items()
            for key, entry in shelf.entries.items()
            if key.kind == kind
        }

    def sweep(
        self, kind: str, before: dict[tuple[Place, Key], str], there: set[tuple[Place | None, Key]]
    ) -> set[Place]:
        """Forget what a list read after `before` no longer holds. Return who changed."""
        changed: set[Place] = set()
        now = self.versions(kind)
        for place, key in before.keys() - there:
            if now.get((place, key)) != before[place, key]:
                continue
            if kind == CLUSTER.name:
                del self._clusters[place]
            else:
                self.forget(place, key, self._shelves[place].entries[key].uid)
            changed.add(place)
        return changed

    def _put_cluster(self, body: Body) -> Place | None:
        metadata = body["metadata"]
        place = Place(metadata["namespace"], metadata["name"])
        known = self._clusters.get(place)
        if known is not None and not known.is_older_than(metadata):
            return None
        self._clusters[place] = _entry(body)
        return place


def place_and_key(body: Body) -> tuple[Place | None, Key]:
    """Return what `sweep` knows an object by."""
    metadata = body["metadata"]
    home = Place(metadata["namespace"], metadata["name"]) if body["kind"] == CLUSTER.name else _place_of(metadata)
    return home, key_of(body)


def _place_of(metadata: Body) -> Place | None:
    name = metadata.get("labels", {}).get(CLUSTER_LABEL)
    return Place(metadata["namespace"], name) if name else None


def _entry(body: Body) -> Entry:
    """Pack an object without what nobody reads: who manages which field, and most of a pod."""
    metadata = body["metadata"]
    kept = {key: value for key, value in metadata.items() if key != "managedFields"}
    trimmed = _pod(body) if body["kind"] == POD.name else body | {"metadata": kept}
    return Entry(metadata["uid"], metadata.get("resourceVersion", ""), orjson.dumps(trimmed))


def _pod(body: Body) -> Body:
    metadata, status = body["metadata"], body.get("status", {})
    return {
        "kind": POD.name,
        "metadata": {
            **_only(POD_METADATA, metadata),
            "labels": _only(POD_LABELS, metadata.get("labels", {})),
            "annotations": _only((DELETION_COST,), metadata.get("annotations", {})),
        },
        "status": {
            "phase": status.get("phase", "Pending"),
            "conditions": [
                _only(CONDITION, item)
                for item in status.get("conditions", [])
                if item["type"] == "Ready" or item["status"] != "True"
            ],
            "containerStatuses": [_only(CONTAINER, item) for item in status.get("containerStatuses", [])],
        },
    }


def _only(keys: Collection[str], found: Body) -> Body:
    return {key: found[key] for key in keys if key in found}
