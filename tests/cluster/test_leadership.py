"""Two real operators over one Lease, with the real scaler and a real Valkey: killed, stopped, robbed of the lease."""

import asyncio
import signal
import threading
import time
import urllib.request
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cluster.api_server import ApiServer
from cluster.conftest import OPERATOR
from cluster.operators import start_operator
from cluster.world import Cluster
from taskflow_core.probes import Pulse
from taskflow_operator.cluster import KubernetesApi, NotLeading
from taskflow_operator.kinds import CLUSTER, DEPLOYMENT, LEASE, Body
from taskflow_operator.lease import Lease, LeaseLost
from taskflow_operator.main import within
from waiting import eventually

INTERNAL: dict[str, Any] = {"autoscaling": {"minReplicas": 2, "pollingIntervalSeconds": 1}}


def answer(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as reply:
        text: str = reply.read().decode()
        return text


def worker(cluster: Cluster) -> Body:
    return cluster.get(DEPLOYMENT, "shop-worker") or {"spec": {"replicas": 0}}


def in_service(cluster: Cluster) -> bool:
    cluster.end_jobs()
    cluster.get_ready()
    return cluster.is_so("Ready", "True") and cluster.is_so("BrokerReachable", "True")


def test_when_the_leader_is_killed_the_next_takes_over_and_scales_nothing_twice(
    api_server: ApiServer, cluster: Cluster, redis_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.secret("redis", url=redis_url)
    cluster.create(workers=INTERNAL)
    first, _ = start_operator(api_server, cluster.namespace, tmp_path, 1)
    second = None
    try:
        first.wait_for("operator.leading")
        second, port = start_operator(api_server, cluster.namespace, tmp_path, 2)
        second.wait_for("operator.started")
        eventually(lambda: in_service(cluster) and worker(cluster)["spec"]["replicas"] == 2, timeout=60)
        before = worker(cluster)["metadata"]["generation"]
        assert not second.said("lease.acquired")
        assert "taskflow_operator_leader 0.0" in answer(port, "/metrics")
        first.kill(signal.SIGKILL)
        killed_at = time.monotonic()
        eventually(partial(second.said, "operator.leading"), timeout=60)
        waited = time.monotonic() - killed_at
        cluster.patch(CLUSTER, "shop", {"spec": {"api": {"replicas": 3}}})
        eventually(lambda: (cluster.get(DEPLOYMENT, "shop-api") or {})["spec"]["replicas"] == 3)
        assert worker(cluster)["metadata"]["generation"] == before
        assert answer(port, "/health/live") == "ok\n"
        assert "taskflow_operator_leader 1.0" in answer(port, "/metrics")
        assert second.stop() == 0, second.log.read_text()
        lease = api_server.kubectl("get", "lease", cluster.namespace, "-n", "default", "-o", "jsonpath={.spec}")
        assert '"holderIdentity":""' in lease.stdout
    finally:
        for child in filter(None, (first, second)):
            child.kill()
            child.process.wait(timeout=10)
    with capsys.disabled():
        print(f"\nthe next operator led {waited:.1f} s after the first was killed; 0 scalings by it")  # noqa: T201 figures


def candidate(api: KubernetesApi, name: str, identity: str) -> Lease:
    return Lease(api, namespace="default", name=name, identity=identity, pulse=Pulse(lease=60.0))


async def test_a_lease_that_is_given_back_is_taken_at_once(kubernetes: KubernetesApi, cluster: Cluster) -> None:
    first, second = (candidate(kubernetes, cluster.namespace, name) for name in ("first", "second"))
    await first.acquire()
    assert first.is_held()
    await first.release()
    assert not first.is_held()
    await asyncio.wait_for(second.acquire(), 10)


async def test_the_lease_is_renewed_while_the_loop_of_the_looks_stands_still(
    api_server: ApiServer, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(api_server.kubeconfig("operator")))

    def renewed() -> str:
        return str(cluster.client.get(LEASE.path("default", cluster.namespace)).json()["spec"]["renewTime"])

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    api = await within(loop, KubernetesApi.connect())
    lease = candidate(api, cluster.namespace, "first")
    await within(loop, lease.acquire())
    keeping = within(loop, lease.keep())
    before = renewed()
    eventually(lambda: renewed() != before)  # this loop stands still until then
    keeping.cancel()
    await within(loop, lease.release())
    await within(loop, api.close())
    loop.call_soon_threadsafe(loop.stop)
    thread.join(timeout=10)
    loop.close()


async def test_a_holder_that_finds_another_in_its_place_gives_up(kubernetes: KubernetesApi, cluster: Cluster) -> None:
    first = candidate(kubernetes, cluster.namespace, "first")
    await first.acquire()
    await kubernetes.merge(LEASE, "default", cluster.namespace, {"spec": {"holderIdentity": "a usurper"}})
    with pytest.raises(LeaseLost):
        await asyncio.wait_for(first.keep(), 30)


async def test_what_a_leader_would_write_after_its_lease_is_not_sent(
    api_server: ApiServer, kubernetes: KubernetesApi, cluster: Cluster
) -> None:
    leads = True
    api = kubernetes.fenced(lambda: leads)
    await candidate(kubernetes, cluster.namespace, "first").acquire()
    change = {"metadata": {"annotations": {"example.com/asked": "true"}}}
    await api.merge(LEASE, "default", cluster.namespace, change)
    asked = len(api_server.audited(OPERATOR))
    leads = False
    with pytest.raises(NotLeading, match="the lease is over"):
        await api.merge(LEASE, "default", cluster.namespace, change)
    assert await api.get(LEASE, "default", cluster.namespace)
    assert len(api_server.audited(OPERATOR)) == asked + 1
