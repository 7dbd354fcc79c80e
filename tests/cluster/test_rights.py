"""The operator's roles hold what it uses and nothing else, by the API server's own audit log."""

import json
from typing import Any, NamedTuple

import yaml

from cluster.api_server import ApiServer
from cluster.conftest import FILES, OPERATOR
from cluster.operators import running_operator
from cluster.steps import MANUAL, deployments, roll_out, until
from cluster.world import Cluster
from taskflow_operator.cluster import KubernetesApi, PoolCluster
from taskflow_operator.kinds import CLUSTER, DEPLOYMENT, POD_MONITOR

EVERYTHING: dict[str, Any] = {
    "workers": MANUAL | {"replicas": 2},
    "extraPools": [{"name": "slow", **MANUAL}],
    "api": {"ingress": {"enabled": True, "host": "tasks.example.com"}, "pdb": {"enabled": True}},
    "networkPolicy": {"enabled": True},
    "monitoring": {"podMonitor": {"enabled": True}},
}


class Right(NamedTuple):
    """A verb on a resource."""

    group: str
    resource: str
    verb: str


def granted() -> set[Right]:
    roles = yaml.safe_load_all((FILES / "rbac.yaml").read_text())
    return {
        Right(group, resource, verb)
        for role in roles
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def used(server: ApiServer) -> set[Right]:
    """Return the rights that requests needed; an apply that made something needed `create` too."""
    found = set()
    for entry in server.audited(OPERATOR):
        reference = entry["objectRef"]
        sub = f"/{reference['subresource']}" if "subresource" in reference else ""
        right = Right(reference.get("apiGroup", ""), reference["resource"] + sub, entry["verb"])
        found.add(right)
        if right.verb == "patch" and entry.get("responseStatus", {}).get("code") == 201:
            found.add(right._replace(verb="create"))
    return found


def pod_monitors() -> str:
    """Return a definition of PodMonitors, as the Prometheus operator would bring it."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    group, version = POD_MONITOR.api_version.split("/")
    names = {"kind": POD_MONITOR.name, "plural": POD_MONITOR.plural, "singular": "podmonitor"}
    served = {"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return json.dumps(
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{POD_MONITOR.plural}.{group}"},
            "spec": {"group": group, "names": names, "scope": "Namespaced", "versions": [served]},
        }
    )


async def test_every_right_is_used_and_none_is_missing(
    api_server: ApiServer, cluster: Cluster, kubernetes: KubernetesApi
) -> None:
    assert api_server.kubectl("apply", "-f", "-", text=pod_monitors()).returncode == 0
    await until(lambda: cluster.client.get(POD_MONITOR.path(cluster.namespace)).status_code == 200)
    cluster.create(**EVERYTHING)
    async with running_operator(kubernetes, cluster.namespace):
        await roll_out(cluster)
        await until(lambda: deployments(cluster)["shop-worker"]["spec"]["replicas"] == 2)
        labels = deployments(cluster)["shop-worker"]["spec"]["template"]["metadata"]["labels"]
        cluster.pod("shop-worker-1", labels, {"phase": "Running"})
        await PoolCluster(kubernetes, cluster.namespace).set_deletion_cost("shop-worker-1", -1000)
        cluster.delete(CLUSTER, "shop")
        uid = cluster.create(**EVERYTHING)["metadata"]["uid"]

        def taken_over() -> bool:
            cluster.end_jobs()
            return {body["metadata"]["ownerReferences"][0]["uid"] for body in cluster.all_of(DEPLOYMENT)} == {uid}

        await until(taken_over)
        await roll_out(cluster)
        await until(lambda: granted() <= used(api_server))
    refused = [entry["requestURI"] for entry in api_server.audited(OPERATOR) if entry["responseStatus"]["code"] == 403]
    assert refused == []
    assert used(api_server) == granted()
