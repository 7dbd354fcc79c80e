"""The definition, the operator and the clusters go, or change, in whatever order people do that."""

import asyncio
import itertools
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest
import yaml

from cluster.api_server import ApiServer
from cluster.conftest import FILES
from cluster.operators import running_operator
from cluster.steps import MANUAL, deployments, roll_out, ticks, until
from cluster.world import Cluster
from taskflow_operator.cluster import KubernetesApi
from taskflow_operator.crd import PLURAL
from taskflow_operator.kinds import CLUSTER, SERVICE

DEFINITION = f"{PLURAL}.taskflow.io"


@pytest.fixture
def definition(api_server: ApiServer) -> Iterator[dict[str, Any]]:
    """Return the definition as it is shipped; it is there again after the test."""
    text = (FILES / "crd.yaml").read_text()
    yield yaml.safe_load(text)
    apply_definition(api_server, text)


def apply_definition(server: ApiServer, text: str) -> None:
    """Replace the definition and wait until the API server serves it."""
    made = server.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", text=text)
    assert made.returncode == 0, made.stderr
    server.kubectl("wait", "--for=condition=Established", f"crd/{DEFINITION}", "--timeout=30s")


async def test_10_an_uninstall_ends_in_every_order(
    api_server: ApiServer,
    cluster: Cluster,
    kubernetes: KubernetesApi,
    definition: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    took: dict[str, float] = {}
    for number, order in enumerate(itertools.permutations(("operator", "cluster", "definition"))):
        name = f"shop-{number}"
        await asyncio.to_thread(apply_definition, api_server, yaml.safe_dump(definition))
        await until(lambda: cluster.try_create({}).status_code != 404)
        cluster.create(name, workers=MANUAL)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(running_operator(kubernetes, cluster.namespace))
            await until(partial(cluster.get, SERVICE, f"{name}-api"))
            began = time.monotonic()
            for step in order:
                if step == "operator":
                    await stack.aclose()
                elif step == "cluster":
                    cluster.client.delete(CLUSTER.path(cluster.namespace, name))
                else:
                    await asyncio.to_thread(api_server.kubectl, "delete", "crd", DEFINITION, "--wait=false")
            await until(lambda: api_server.kubectl("get", "crd", DEFINITION).returncode != 0)
            took[" > ".join(order)] = time.monotonic() - began
    with capsys.disabled():
        sys.stdout.write(f"\n6 orders of uninstalling, none hung: {max(took.values()):.1f} s at most\n")


async def test_10_a_newer_definition_beside_this_operator_and_back_prunes_nothing_and_rolls_nothing_out(
    api_server: ApiServer,
    cluster: Cluster,
    kubernetes: KubernetesApi,
    definition: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    def generations() -> dict[str, int]:
        return {name: body["metadata"]["generation"] for name, body in deployments(cluster).items()}

    shipped = yaml.safe_dump(definition)
    properties = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    added = {"type": "object", "properties": {"colour": {"type": "string"}}}
    properties["spec"]["properties"]["future"] = added
    properties["spec"]["properties"]["workers"]["properties"]["future"] = added
    properties["status"]["properties"]["future"] = added
    cluster.create(workers=MANUAL)
    async with running_operator(kubernetes, cluster.namespace) as operator:
        await roll_out(cluster)
        before = generations()
        await asyncio.to_thread(apply_definition, api_server, yaml.safe_dump(definition))
        blue = {"future": {"colour": "blue"}}

        def is_kept() -> bool:
            cluster.patch(CLUSTER, "shop", {"spec": blue | {"workers": blue}})
            cluster.patch(CLUSTER, "shop", {"status": blue}, sub="status")
            found = cluster.get(CLUSTER, "shop") or {}
            return found["spec"].get("future") is not None and found["status"].get("future") is not None

        await until(is_kept)
        cluster.patch(CLUSTER, "shop", {"spec": {"api": {"replicas": 3}}})
        await until(lambda: deployments(cluster)["shop-api"]["spec"]["replicas"] == 3)
        await ticks(operator, cluster, 3)
        found = cluster.get(CLUSTER, "shop")
        assert found is not None
        assert (found["spec"]["future"], found["spec"]["workers"]["future"]) == (blue["future"], blue["future"])
        assert found["status"]["future"] == blue["future"], "the operator writes its own fields of the status alone"
        await asyncio.to_thread(apply_definition, api_server, shipped)
        await ticks(operator, cluster, 3)
        after = generations()
    scaled = before | {"shop-api": before["shop-api"] + 1}
    assert after == scaled, "one scaling that was asked for, and no rollout"
    with capsys.disabled():
        sys.stdout.write("\na newer definition and back: 3 unknown fields kept while it was there, 0 rollouts\n")
