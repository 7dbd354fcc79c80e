"""What the watches told: clusters, their children and their pods, as compact JSON; never newer than the API server."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from taskflow_operator.kinds import CLUSTER, POD, Body
from taskflow_operator.names import CLUSTER_LABEL
from taskflow_operator.observed import Key, key_of

POD_METADATA = ("name", "namespace", "uid", "labels", "annotations", "creationTimestamp", "deletionTimestamp")


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
    """The objects of one cluster; `version` grows with each change."""

    entries: dict[Key, Entry] = field(default_factory=dict)
    version: int = 0

    def bodies(self) -> Iterator[tuple[Key, Body]]:
        """Yield all objects."""
        for key, entry in self.entries.items():
            yield key, orjson.loads(entry.packed)


class Store:
    """All that is known, by cluster. Objects are told apart by the label that names their cluster."""

    def __init__(self) -> None:
        self.clusters: dict[Place, Body] = {}
        self._shelves: dict[Place, Shelf] = {}

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
        shelf.entries[key] = Entry(metadata["uid"], metadata.get("resourceVersion", ""), orjson.dumps(_trimmed(body)))
        shelf.version += 1
        return place

    def drop(self, body: Body) -> Place | None:
        """Forget an object that is gone; return whose it was, or None when another of that name is known."""
        metadata = body["metadata"]
        if body["kind"] == CLUSTER.name:
            place = Place(metadata["namespace"], metadata["name"])
            known = self.clusters.get(place)
            if known is None or known["metadata"]["uid"] != metadata["uid"]:
                return None
            del self.clusters[place]
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
        shelf.version += 1
        if not shelf.entries and place not in self.clusters:
            del self._shelves[place]
        return place

    def versions(self, kind: str) -> dict[tuple[Place, Key], str]:
        """Return the version of every object of a kind, for `sweep`."""
        if kind == CLUSTER.name:
            return {
                (place, Key(kind, place.name)): body["metadata"]["resourceVersion"]
                for place, body in self.clusters.items()
            }
        return {
            (place, key): entry.version
            for place, shelf in self._shelves.items()
            for key, entry in shelf.entries.items()
            if key.kind == kind
        }

    def sweep(self, kind: str, before: dict[tuple[Place, Key], str], listed: Collection[Body]) -> set[Place]:
        """Take over a list read after `before`: keep what it holds, forget what is gone. Return who changed."""
        changed = {place for body in listed if (place := self.put(body))}
        there = {(_home(body), key_of(body)) for body in listed}
        now = self.versions(kind)
        for place, key in before.keys() - there:
            if now.get((place, key)) != before[place, key]:
                continue
            if kind == CLUSTER.name:
                del self.clusters[place]
            else:
                self.forget(place, key, self._shelves[place].entries[key].uid)
            changed.add(place)
        return changed

    def _put_cluster(self, body: Body) -> Place | None:
        metadata = body["metadata"]
        place = Place(metadata["namespace"], metadata["name"])
        known = self.clusters.get(place)
        if known is not None:
            old = known["metadata"]
            if not Entry(old["uid"], old["resourceVersion"], b"").is_older_than(metadata):
                return None
        self.clusters[place] = _trimmed(body)
        return place


def _home(body: Body) -> Place | None:
    metadata = body["metadata"]
    return Place(metadata["namespace"], metadata["name"]) if body["kind"] == CLUSTER.name else _place_of(metadata)


def _place_of(metadata: Body) -> Place | None:
    name = metadata.get("labels", {}).get(CLUSTER_LABEL)
    return Place(metadata["namespace"], name) if name else None


def _trimmed(body: Body) -> Body:
    """Return an object without what nobody reads: who manages which field, and all of a pod but its status."""
    metadata: dict[str, Any] = {key: value for key, value in body["metadata"].items() if key != "managedFields"}
    if body["kind"] == POD.name:
        kept = {key: metadata[key] for key in POD_METADATA if key in metadata}
        return {"kind": body["kind"], "metadata": kept, "status": body.get("status", {})}
    return body | {"metadata": metadata}
