"""Redis dies under a pool and comes back empty, with the real scaler; only its times are shorter than in life."""

import asyncio
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from redis import Redis

from cluster.operators import real_scaler, running_operator
from cluster.steps import deployments, until
from cluster.world import Cluster
from faults.servers import Server
from taskflow_cli.embedded import valkey
from taskflow_cli.embedded.ports import free_port
from taskflow_core.clock import utc_now
from taskflow_core.queue import QUEUE_KEY, job_id
from taskflow_operator.cluster import KubernetesApi

WINDOW_S = 5
WORKERS: dict[str, Any] = {
    "queues": ["default"],
    "concurrency": 4,
    "autoscaling": {
        "minReplicas": 1,
        "tasksPerSlot": 5,
        "pollingIntervalSeconds": 1,
        "behavior": {
            "scaleDown": {
                "stabilizationWindowSeconds": WINDOW_S,
                "policies": [{"type": "Pods", "value": 100, "periodSeconds": 1}],
            }
        },
    },
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    password, port, folder = secrets.token_urlsafe(16), free_port(), tmp_path / "valkey"
    valkey.initialise(folder, port, password)
    launch = valkey.launch(valkey.find(), folder)
    running = Server(launch, url=valkey.url(password, port), ready=valkey.is_ready, log=tmp_path / "valkey.log")
    running.start()
    yield running
    running.stop(signal.SIGKILL)


def enqueue(server: Server, count: int) -> None:
    with Redis.from_url(server.url) as redis:
        redis.rpush(QUEUE_KEY + "default", *(job_id(uuid4(), utc_now()) for _ in range(count)))


def replicas(cluster: Cluster) -> int:
    cluster.end_jobs()
    cluster.get_ready()
    found = deployments(cluster).get("shop-worker", {"spec": {"replicas": 0}})
    return int(found["spec"]["replicas"])


async def test_4_a_redis_that_was_away_and_comes_back_empty_takes_no_worker_away_for_a_window(
    cluster: Cluster, kubernetes: KubernetesApi, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.secret("redis", url=server.url)
    enqueue(server, 100)
    cluster.create(workers=WORKERS)
    async with running_operator(kubernetes, cluster.namespace, make=real_scaler):
        await until(lambda: replicas(cluster) == 5 and cluster.is_so("Ready", "True"))
        server.stop(signal.SIGKILL)
        died = time.monotonic()
        await until(lambda: cluster.is_so("ScalingActive", "False", "Fallback"))
        assert cluster.is_so("BrokerReachable", "False")
        assert cluster.is_so("Ready", "True")
        assert replicas(cluster) == 5
        shutil.rmtree(server.folder / "appendonlydir")
        away = time.monotonic() - died
        await asyncio.to_thread(server.start)
        back = time.monotonic()
        await until(lambda: cluster.is_so("BrokerReachable", "True"))
        assert replicas(cluster) == 5
        await until(lambda: replicas(cluster) == 1)
        held = time.monotonic() - back
        ready = cluster.condition("Ready")
    assert held >= WINDOW_S, "a window of good reads comes first"
    assert ready["status"] == "True"
    assert not any("Ready is False" in event for event in cluster.events()), "Ready never turned"
    with capsys.disabled():
        sys.stdout.write(
            f"\nRedis away for {away:.0f} s, back empty: 5 replicas kept, ScalingActive False, Ready True; "
            f"scaled in {held:.0f} s after its return (window {WINDOW_S} s)\n"
        )
