from typing import Any

import pytest

from taskflow_operator.kinds import CLUSTER, POD, Body
from taskflow_operator.store import Place, Store, place_and_key

PLACE = Place("team", "shop")
LABELS = {
    "taskflow.io/cluster": "shop",
    "taskflow.io/pool": "default",
    "app.kubernetes.io/component": "worker",
    "pod-template-hash": "5d5f8c9b7",
}


def pod(name: str = "shop-worker-1", *, version: int = 7, **status: Any) -> Body:
    """Return a pod about as large as they come."""
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-24T12:00:00Z"}
    container = {"name": "worker", "image": "a/b:1", "imageID": "x" * 200, "containerID": "y" * 80, "state": {}}
    return {
        "apiVersion": "v1",
        "kind": POD.name,
        "metadata": {
            "name": name,
            "namespace": PLACE.namespace,
            "uid": f"uid-of-{name}",
            "resourceVersion": str(version),
            "creationTimestamp": "2026-11-24T12:00:00Z",
            "labels": LABELS,
            "annotations": {"taskflow.io/secrets": "h" * 16, "controller.kubernetes.io/pod-deletion-cost": "-1000"},
            "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": "z" * 2000}}],
        },
        "spec": {"containers": [{"name": "worker", "env": ["e" * 4000]}]},
        "status": {"phase": "Running", "conditions": [ready], "containerStatuses": [container]} | status,
    }


def cluster(*, version: int = 7) -> Body:
    metadata = {"name": "shop", "namespace": "team", "uid": "uid-1", "resourceVersion": str(version)}
    return {"kind": CLUSTER.name, "metadata": metadata, "spec": {}}


def kept(store: Store) -> dict[str, Body]:
    return {key.name: body for key, body in store.shelf(PLACE).bodies()}


def test_of_a_pod_only_what_is_read_is_kept() -> None:
    store = Store()
    unready = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no node"}
    fine = {"type": "Initialized", "status": "True"}
    store.put(pod(conditions=[unready, fine]))
    (found,) = kept(store).values()
    assert found["metadata"]["labels"].keys() == LABELS.keys() - {"pod-template-hash"}
    assert found["metadata"]["annotations"] == {"controller.kubernetes.io/pod-deletion-cost": "-1000"}
    assert found["status"]["conditions"] == [unready]
    assert found["status"]["containerStatuses"] == [{"image": "a/b:1", "state": {}}]
    assert sum(len(entry.packed) for entry in store.shelf(PLACE).entries.values()) < 600


def test_old_news_changes_nothing() -> None:
    store = Store()
    assert store.put(pod(version=7)) == PLACE
    assert store.put(pod(version=6, phase="Pending")) is None
    assert kept(store)["shop-worker-1"]["status"]["phase"] == "Running"
    assert store.put(cluster(version=7)) == PLACE
    assert store.put(cluster(version=7)) is None


def test_what_a_list_no_longer_holds_is_forgotten_unless_it_came_meanwhile() -> None:
    store = Store()
    store.put(pod("gone"))
    store.put(pod("stays"))
    before = store.versions(POD.name)
    store.put(pod("new"))
    assert store.sweep(POD.name, before, {place_and_key(pod("stays"))}) == {PLACE}
    assert kept(store).keys() == {"stays", "new"}


@pytest.mark.parametrize("kind", [CLUSTER.name, POD.name])
def test_only_the_object_itself_is_dropped_not_its_successor(kind: str) -> None:
    store = Store()
    body = cluster() if kind == CLUSTER.name else pod()
    store.put(body)
    former = body | {"metadata": body["metadata"] | {"uid": "another"}}
    assert store.drop(former) is None
    assert store.drop(body) == PLACE
    assert (store.cluster(PLACE), kept(store)) == (None, {})
