"""What several tests of the operator do and look at."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from cluster.operators import Operator
from cluster.world import Cluster
from taskflow_operator.kinds import CLUSTER, DEPLOYMENT, JOB, SERVICE, SERVICE_ACCOUNT, Body
from taskflow_operator.store import Place
from waiting import eventually_async

T = TypeVar("T")
MANUAL: dict[str, Any] = {"autoscaling": {"mode": "Manual", "pollingIntervalSeconds": 1}}


async def until(check: Callable[[], T | None], timeout: float = 30.0) -> T:  # noqa: ASYNC109 polls
    """Wait for a check that blocks, in a thread: the operator runs in this loop."""
    return await eventually_async(lambda: asyncio.to_thread(check), timeout)


def deployments(cluster: Cluster) -> dict[str, Body]:
    return {body["metadata"]["name"]: body for body in cluster.all_of(DEPLOYMENT)}


def image(cluster: Cluster, name: str) -> str:
    return str(deployments(cluster)[name]["spec"]["template"]["spec"]["containers"][0]["image"])


async def roll_out(cluster: Cluster, name: str = "shop") -> None:
    """Let migrations end and pods come, until the cluster is Ready and nothing moves."""

    def step() -> bool:
        cluster.end_jobs()
        cluster.get_ready()
        return cluster.is_so("Ready", "True", name=name) and cluster.is_so("Progressing", "False", "UpToDate", name)

    await until(step)


def versions(cluster: Cluster) -> dict[str, str]:
    kinds = (CLUSTER, DEPLOYMENT, SERVICE, SERVICE_ACCOUNT, JOB)
    return {
        f"{kind.name} {body['metadata']['name']}": body["metadata"]["resourceVersion"]
        for kind in kinds
        for body in cluster.all_of(kind)
    }


async def ticks(operator: Operator, cluster: Cluster, count: int) -> None:
    """Wait until the cluster's pool was looked at so many times more."""
    views = operator.scalers[Place(cluster.namespace, "shop")][-1].views
    wanted = len(views) + count
    await until(lambda: len(views) >= wanted)
