"""The operator's scaler on a pool whose pods are real worker processes, started as a cluster would start them."""

import asyncio
import signal
import socket
from dataclasses import dataclass, field

from pydantic import SecretStr

from children import Child
from faults.scene import Scene
from pods import FakeCluster, Pod, at_once
from taskflow_core.clock import utc_now
from taskflow_operator.scaler import PoolScaler
from waiting import eventually_async

POLL_S = 1.0
HOST = socket.gethostname()  # a worker tells of itself under its host's name, which is its pod's


@dataclass
class ProcessCluster(FakeCluster):
    """A Deployment whose one pod is a worker of the scene; `started` has a moment for each order to start it."""

    scene: Scene | None = None
    workers: list[Child] = field(default_factory=list)

    async def set_replicas(self, deployment: str, replicas: int, resource_version: str) -> None:
        """Write the count, and start the worker that it asks for."""
        await super().set_replicas(deployment, replicas, resource_version)
        if replicas and not self.pods and self.scene is not None:
            self.pods[HOST] = Pod(HOST)
            self.workers.append(self.scene.start_worker())


async def test_18_a_retry_that_becomes_due_without_a_worker_gets_one(scene: Scene) -> None:
    """The pool is at zero when the second attempt is due. Recovery: from that moment until the attempt began."""
    await scene.scheduler()
    first = await scene.worker()
    ids = await scene.submit(1, "BREAK", lambda _: {"until_attempt": 2})
    await scene.until("attempt = 1 AND status = 'PENDING'")
    first.kill(signal.SIGTERM)
    cluster = ProcessCluster({}, 0, scene=scene)
    scaler = PoolScaler(cluster, SecretStr(scene.servers.valkey.url))

    async def poll() -> None:
        while True:
            await scaler.tick(cluster.view(policy=at_once(maxReplicas=1)), utc_now())
            await asyncio.sleep(POLL_S)

    async def has_ended() -> bool:
        return first.process.poll() is not None

    await eventually_async(has_ended)
    polling = asyncio.create_task(poll())
    try:
        await scene.until_final(ids)
    finally:
        polling.cancel()
        await asyncio.gather(polling, return_exceptions=True)
        await scaler.close()
    assert cluster.written[0] == 1
    assert len(cluster.workers) == 1
    assert await scene.outcomes(ids) == {("retried", "completed")}
    (row,) = await scene.query("SELECT extract(epoch FROM claimed_at - run_at) FROM tasks")
    note = f"a poll of {POLL_S:.0f} s and the start of a Python process"
    await scene.report("18 a retry due at zero workers", ids, recovery_s=float(row[0]), note=note)
