"""A pool's pods as a test plays them: real engines on real servers, and a cluster that deletes as a ReplicaSet does."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from taskflow_core.beacons import BELL_KEY, DRAIN_KEY
from taskflow_core.scaling_policy import ScalingPolicy
from taskflow_operator.scaler import PoolView, Stale
from taskflow_operator.victims import PodView
from taskflow_worker.beacon import BeaconLight, DrainFlag
from taskflow_worker.inbox import Inbox
from taskflow_worker.keeper import Identity
from taskflow_worker.metrics import WorkerMetrics

BORN = datetime(2026, 11, 24, tzinfo=UTC)
NO_WAITING = {"stabilizationWindowSeconds": 0, "policies": [{"type": "Pods", "value": 1000, "periodSeconds": 1}]}
METRICS = WorkerMetrics(slots=1, types=[], registry=CollectorRegistry())
AT_ONCE = {"scaleUp": NO_WAITING, "scaleDown": NO_WAITING}


class WatchedInbox(Inbox):
    """An inbox that tells what it pops after its pod was deleted."""

    deleted = False
    too_late = 0
    popped = 0

    async def take(self, limit: int) -> list[UUID]:
        """Pop as ever."""
        taken = await super().take(limit)
        self.popped += len(taken)
        self.too_late += len(taken) if self.deleted else 0
        return taken


class Worker:
    """What a worker process has of Redis: inbox, flag and beacon; `held` is what its engine would say."""

    def __init__(self, redis: Redis, name: str, queues: Sequence[str], *, slots: int = 1) -> None:
        self.identity = Identity(f"{name}-1-boot", name, name, 1, queues, slots, "0")
        self.flag = DrainFlag(redis, name)
        self.light = BeaconLight(redis, self.identity, self.flag)
        self.inbox = WatchedInbox(redis, queues, METRICS, flag=self.flag, drained=self.light.changed)
        self.held = 0

    async def shine(self) -> None:
        """Keep the beacon lit."""
        await self.light.shine(held=lambda: self.held, paused=lambda: self.inbox.paused, stopping=lambda: False)


@dataclass
class Pod:
    """A pod, as its kubelet and its ReplicaSet see it."""

    name: str
    phase: str = "Running"
    ready: bool = True
    crashed: bool = False
    cost: int | None = None
    born: int = 0

    def rank(self) -> tuple[bool, bool, int, int]:
        """Return its place among those that a ReplicaSet deletes: unstarted, not ready, cheap, young ones first."""
        return self.phase != "Pending", self.ready, self.cost or 0, -self.born

    def view(self) -> PodView:
        """Return what the operator sees."""
        return PodView(self.name, self.phase, self.ready, False, BORN, self.crashed, self.cost)


@dataclass
class FakeCluster:
    """A Deployment with its pods: deletes in the order of a ReplicaSet, refuses what is stale.

    `conflicts` writes are refused; a `mute` one writes and never answers; a `lazy` one has no ReplicaSet that follows.
    """

    pods: dict[str, Pod]
    replicas: int
    version: int = 1
    conflicts: int = 0
    mute: bool = False
    lazy: bool = False
    deleted: list[str] = field(default_factory=list)
    written: list[int] = field(default_factory=list)
    costs: list[tuple[str, int | None]] = field(default_factory=list)

    async def set_replicas(self, deployment: str, replicas: int, resource_version: str) -> None:
        """Write the count, and let the ReplicaSet follow at once."""
        await asyncio.sleep(0)
        if self.conflicts or resource_version != str(self.version):
            self.conflicts = max(0, self.conflicts - 1)
            raise Stale("409")
        self.version += 1
        self.replicas = replicas
        self.written.append(replicas)
        if self.mute:
            raise ConnectionError("no answer")
        while len(self.pods) > replicas and not self.lazy:
            first = min(
                self.pods.values(), key=lambda pod: (pod.phase != "Pending", pod.ready, pod.cost or 0, -pod.born)
            )
            self.deleted.append(first.name)
            del self.pods[first.name]

    async def set_deletion_cost(self, pod: str, cost: int | None) -> None:
        """Annotate the pod, if it is there."""
        await asyncio.sleep(0)
        self.costs.append((pod, cost))
        if pod in self.pods:
            self.pods[pod].cost = cost

    def revive(self, pods: Iterable[Pod]) -> None:
        """Start over with these pods, none of them deleted yet."""
        self.pods = {pod.name: pod for pod in pods}
        self.replicas = len(self.pods)
        self.deleted.clear()

    def view(self, **fields: Any) -> PoolView:
        """Return what the operator sees; by default a pool that follows its queues at once, one slot a pod."""
        known: dict[str, Any] = {
            "cluster_uid": "uid-1",
            "name": "workers",
            "deployment": "demo-worker",
            "replicas": self.replicas,
            "resource_version": str(self.version),
            "pods": [pod.view() for pod in self.pods.values()],
            "rollout_in_progress": False,
            "policy": at_once(),
            "slots": 1,
            "queues": ["default"],
            "target": self.replicas,
        }
        return PoolView(**{**known, **fields})


def at_once(**fields: Any) -> ScalingPolicy:
    """Return a policy that follows its queues without windows and rates."""
    rules = {
        "minReplicas": 0,
        "maxReplicas": 50,
        "tasksPerSlot": 1,
        "scaleToZeroAfterSeconds": 0,
        "tolerancePercent": 0,
    }
    return ScalingPolicy.model_validate({**rules, "behavior": AT_ONCE, **fields})


async def come_back(redis: Redis, name: str) -> None:
    """Let a worker whose pod was deleted work again, as one that took its place."""
    await redis.delete(DRAIN_KEY + name, BELL_KEY + name)
