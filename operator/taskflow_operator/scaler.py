"""Brings a pool to the size its queues ask for, and takes only idle workers away."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from taskflow_core.scaling import Decision, Demand, Overrides
from taskflow_core.scaling_policy import ScalingPolicy


class Stale(Exception):
    """The object changed since it was read (409): nothing was written."""


class Cluster(Protocol):
    """What the scaler does to Kubernetes. Every call is bounded in time; other errors end the tick."""

    async def set_replicas(self, deployment: str, replicas: int, resource_version: str) -> None:
        """Write the Deployment's `/scale` with the resourceVersion of the read.

        Raises:
            Stale: the Deployment changed since.
        """

    async def set_deletion_cost(self, pod: str, cost: int | None) -> None:
        """Annotate the pod with its `pod-deletion-cost`, None to take that away; a pod that is gone is no error."""


@dataclass(frozen=True, slots=True)
class PodView:
    """A pod of the pool as the operator last saw it; its name is its worker's host name.

    `crashed`: none of its containers runs (CrashLoopBackOff, ImagePullBackOff), so it holds no task.
    """

    name: str
    phase: str
    ready: bool
    terminating: bool
    created_at: datetime
    crashed: bool = False


@dataclass(frozen=True, slots=True)
class PoolView:
    """A pool as the operator last saw it.

    `replicas` is the Deployment's `spec.replicas`, `resource_version` that read's; `target` the spec's own `replicas`,
    which counts in the modes Manual and External.
    """

    cluster_uid: str
    name: str
    deployment: str
    replicas: int
    resource_version: str
    pods: Sequence[PodView]
    rollout_in_progress: bool
    policy: ScalingPolicy
    slots: int
    queues: Sequence[str]
    target: int
    overrides: Overrides = field(default_factory=Overrides)


@dataclass(frozen=True, slots=True)
class Flag:
    """The inputs of a condition."""

    status: bool
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class PoolReport:
    """What a tick saw and did. `events` are sentences for Kubernetes events, empty when nothing changed.

    `replicas` is what the Deployment asks for now; `busy`, `idle` and `draining` count pods.
    """

    decision: Decision
    demand: Demand
    replicas: int
    busy: int
    idle: int
    draining: int
    broker_reachable: Flag
    scaling_active: Flag
    scaling_limited: Flag
    events: Sequence[str] = ()
