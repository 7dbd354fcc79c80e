"""Others who write: an HPA, kubectl and GitOps; an API server that fails; watches that say too little."""

import random
from functools import partial
from typing import Any

import pytest

from cluster.operators import running_operator
from cluster.steps import MANUAL, deployments, roll_out, until
from cluster.world import Cluster
from operator_world import NEEDED
from taskflow_operator.cluster import ApiFailure, KubernetesApi
from taskflow_operator.kinds import CLUSTER, DEPLOYMENT, Body
from taskflow_operator.watches import Watches

SYNCS = 100
EXTERNAL: dict[str, Any] = {"autoscaling": {"mode": "External", "pollingIntervalSeconds": 1}}


def has_replicas(cluster: Cluster, wanted: int) -> bool:
    return bool(deployments(cluster)["shop-worker"]["spec"]["replicas"] == wanted)


async def test_an_hpa_kubectl_and_gitops_do_not_fight(
    cluster: Cluster, kubernetes: KubernetesApi, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = {"apiVersion": CLUSTER.api_version, "kind": CLUSTER.name, "metadata": {"name": "shop"}}
    spec = NEEDED | {"workers": EXTERNAL}
    path = CLUSTER.path(cluster.namespace, "shop")

    def sync() -> None:
        """Apply the manifest as a GitOps tool does: again and again, and without a replica count."""
        answer = cluster.client.patch(
            path,
            json=manifest | {"spec": spec},
            params={"fieldManager": "gitops", "force": "true"},
            headers={"Content-Type": "application/apply-patch+yaml"},
        )
        assert answer.status_code in {200, 201}, answer.text

    sync()
    async with running_operator(kubernetes, cluster.namespace):
        await roll_out(cluster)
        before = deployments(cluster)["shop-worker"]
        wanted = 1
        for number in range(SYNCS):
            sync()
            if number % 20 == 19:
                wanted += 1
                cluster.patch(CLUSTER, "shop", {"spec": {"replicas": wanted}}, sub="scale")
                await until(partial(has_replicas, cluster, wanted))
        after = deployments(cluster)["shop-worker"]
        changes = after["metadata"]["generation"] - before["metadata"]["generation"]
        found = cluster.get(CLUSTER, "shop")
    assert found is not None
    assert found["spec"]["workers"]["replicas"] == wanted
    assert changes == SYNCS // 20
    assert "f:replicas" not in str(applied_fields(after))
    with capsys.disabled():
        print(f"\n{SYNCS} syncs, {changes} scalings by an HPA: {changes} writes to the Deployment")  # noqa: T201 figures


def applied_fields(body: Body) -> list[Body]:
    """Return the spec's fields that an apply holds."""
    managed = body["metadata"]["managedFields"]
    return [item["fieldsV1"].get("f:spec", {}) for item in managed if item["operation"] == "Apply"]


async def test_an_api_server_that_fails_now_and_then_only_makes_it_slower(
    cluster: Cluster, kubernetes: KubernetesApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(7)
    faults = [ApiFailure(status, "Injected", "by the test") for status in (0, 409, 410, 429, 500, 503)]
    raised: list[int] = []
    honest = KubernetesApi._once

    async def moody(self: KubernetesApi, *arguments: Any) -> Body:
        path = arguments[1]
        if "leases" not in path and chance.random() < 0.2:
            fault = chance.choice(faults)
            raised.append(fault.status)
            raise fault
        return await honest(self, *arguments)

    monkeypatch.setattr(KubernetesApi, "_once", moody)
    cluster.create(workers=MANUAL | {"replicas": 3})
    async with running_operator(kubernetes, cluster.namespace):
        await roll_out(cluster)
        await until(partial(has_replicas, cluster, 3))
        cluster.patch(CLUSTER, "shop", {"spec": {"api": {"replicas": 4}}})
        await until(lambda: deployments(cluster)["shop-api"]["spec"]["replicas"] == 4)
    with capsys.disabled():
        print(f"\n{len(raised)} requests failed ({sorted(set(raised))}), all of the spec was reached")  # noqa: T201 figures


async def test_watches_that_say_nothing_are_made_up_for_by_the_refresh(
    cluster: Cluster, kubernetes: KubernetesApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Watches, "_take", lambda *_, **__: None)
    cluster.create(workers=MANUAL)
    async with running_operator(kubernetes, cluster.namespace, refresh_s=1):
        await roll_out(cluster)
        cluster.delete(DEPLOYMENT, "shop-scheduler")
        await until(lambda: "shop-scheduler" in deployments(cluster))
        cluster.delete(CLUSTER, "shop")
        uid = cluster.create(workers=MANUAL)["metadata"]["uid"]

        def taken_over() -> bool:
            cluster.end_jobs()
            owners = {body["metadata"]["ownerReferences"][0]["uid"] for body in cluster.all_of(DEPLOYMENT)}
            return owners == {uid} and len(deployments(cluster)) == 3

        await until(taken_over)
