"""An operator of the whole cluster, and one that has its rights in some namespaces alone."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

from cluster.api_server import ApiServer
from cluster.conftest import CONFINED
from cluster.operators import running_operator
from cluster.steps import MANUAL, deployments, roll_out, until
from cluster.world import Cluster
from taskflow_operator.cluster import KubernetesApi
from taskflow_operator.kinds import CLUSTER
from taskflow_operator.rbac import OWN, PLATFORM, Grant, role

RBAC = "/apis/rbac.authorization.k8s.io/v1/namespaces"


@pytest.fixture
def other(cluster: Cluster) -> Iterator[Cluster]:
    """Return a second namespace."""
    world = Cluster(cluster.client, f"other-{uuid4().hex[:6]}")
    world.prepare()
    yield world
    world.clean()


def bind(cluster: Cluster, namespace: str, grants: tuple[Grant, ...]) -> None:
    """Give the confined operator a Role in a namespace."""
    name = cluster.namespace
    cluster.post(f"{RBAC}/{namespace}/roles", role("Role", name, grants))
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    subjects = [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": CONFINED}]
    body = {"metadata": {"name": name}, "roleRef": reference, "subjects": subjects}
    cluster.post(f"{RBAC}/{namespace}/rolebindings", body)


async def test_an_operator_of_chosen_namespaces_needs_no_more_than_a_role_in_each(
    api_server: ApiServer, cluster: Cluster, other: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    bind(cluster, cluster.namespace, PLATFORM)
    bind(cluster, "default", OWN)
    cluster.create(workers=MANUAL)
    other.create(workers=MANUAL)
    monkeypatch.setenv("KUBECONFIG", str(api_server.kubeconfig(CONFINED)))
    api = await KubernetesApi.connect()
    async with running_operator(api, cluster.namespace):
        await roll_out(cluster)
        cluster.patch(CLUSTER, "shop", {"spec": {"api": {"replicas": 3}}})
        await until(lambda: deployments(cluster)["shop-api"]["spec"]["replicas"] == 3)
    await api.close()
    assert deployments(other) == {}
    asked = api_server.audited(CONFINED)
    assert asked
    assert [entry["requestURI"] for entry in asked if entry["responseStatus"]["code"] == 403] == []


async def test_an_operator_of_the_whole_cluster_finds_its_clusters_in_every_namespace(
    cluster: Cluster, other: Cluster, kubernetes: KubernetesApi
) -> None:
    cluster.create(workers=MANUAL)
    async with running_operator(kubernetes):
        await roll_out(cluster)
        other.create("later", workers=MANUAL)
        await roll_out(other, "later")
