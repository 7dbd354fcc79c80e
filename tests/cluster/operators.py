"""Operators inside the test's process, and a stand-in for the scaler that only follows `spec.replicas`."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from uuid import uuid4

from pydantic import SecretStr

from children import Child
from cluster.api_server import ApiServer
from taskflow_cli.embedded.ports import free_port
from taskflow_core.scaling import Decision, Demand, History, Reason
from taskflow_core.settings import OperatorSettings
from taskflow_operator.cluster import KubernetesApi, PoolCluster
from taskflow_operator.main import Process
from taskflow_operator.reconcile import ScalerMaker
from taskflow_operator.scaler import Flag, PoolReport, PoolScaler, PoolView, Stale
from taskflow_operator.store import Place


@dataclass
class FollowingScaler:
    """Sets the replicas that the spec names; remembers what it was shown."""

    cluster: PoolCluster
    redis_url: str
    views: list[PoolView] = field(default_factory=list)
    closed: bool = False

    async def tick(self, view: PoolView, now: datetime) -> PoolReport:
        """Write the spec's count when the Deployment has another."""
        self.views.append(view)
        wanted = 0 if view.overrides.suspend else view.target
        events = []
        if wanted != view.replicas:
            with contextlib.suppress(Stale):
                await self.cluster.set_replicas(view.deployment, wanted, view.resource_version)
                events.append(f"{view.replicas} -> {wanted}: as the spec says")
        fine = Flag(True, "Reads", "")
        return PoolReport(
            decision=Decision(wanted, wanted, Reason.DEMAND, f"{wanted} as the spec says", History()),
            demand=Demand(replicas=view.replicas, slots=view.slots),
            replicas=wanted,
            busy=0,
            idle=0,
            draining=0,
            broker_reachable=fine,
            scaling_active=fine,
            scaling_limited=Flag(False, "WithinBounds", ""),
            events=events,
        )

    async def close(self) -> None:
        """Remember that it was closed."""
        self.closed = True


@dataclass
class Operator:
    """A running operator and the scalers it made."""

    process: Process
    scalers: dict[Place, list[FollowingScaler]]
    task: asyncio.Task[None]

    @property
    def leads(self) -> bool:
        """Whether it has looked at what was there before it."""
        return self.process.leading


def real_scaler(api: KubernetesApi, place: Place, url: SecretStr) -> PoolScaler:
    """Make a scaler as the operator's process does."""
    return PoolScaler(PoolCluster(api, place.namespace), url)


@asynccontextmanager
async def running_operator(
    api: KubernetesApi,
    *namespaces: str,
    lease: str | None = None,
    refresh_s: float = 120.0,
    make: ScalerMaker | None = None,
) -> AsyncIterator[Operator]:
    """Run an operator that looks after these namespaces until the block ends; its scalers follow, unless made."""
    settings = OperatorSettings(
        watch_namespaces=",".join(namespaces), lease_name=lease or f"lease-{uuid4().hex[:8]}", refresh_s=refresh_s
    )
    scalers: dict[Place, list[FollowingScaler]] = {}

    def make_following(fenced: KubernetesApi, place: Place, url: SecretStr) -> FollowingScaler:
        made = FollowingScaler(PoolCluster(fenced, place.namespace), url.get_secret_value())
        scalers.setdefault(place, []).append(made)
        return made

    process = Process(settings, api, make or make_following, lease_api=api, lease_loop=asyncio.get_running_loop())
    task = asyncio.create_task(process.run())
    try:
        yield Operator(process, scalers, task)
    finally:
        process.stopping.set()
        await asyncio.wait_for(task, 30)


def start_operator(
    server: ApiServer, namespace: str, folder: Path, number: int, *, user: str = "operator"
) -> tuple[Child, int]:
    """Start an operator's process with the rights of its roles; return it and the port of its probes."""
    port = free_port()
    env = {
        "KUBECONFIG": str(server.kubeconfig(user)),
        "TASKFLOW_WATCH_NAMESPACES": namespace,
        "TASKFLOW_LEASE_NAME": namespace,
        "TASKFLOW_PROBE_PORT": str(port),
    }
    return Child("taskflow_operator", env, folder / f"operator-{number}.log"), port
