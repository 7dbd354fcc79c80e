"""Clusters that cannot work, each for another reason, beside one that can: each says its reason, and that one runs."""

import sys
from typing import Any

import pytest
from redis import Redis

from cluster.operators import real_scaler, running_operator
from cluster.steps import deployments, roll_out, until
from cluster.world import Cluster
from taskflow_operator.cluster import KubernetesApi
from taskflow_operator.kinds import DEPLOYMENT, Body

FAST: dict[str, Any] = {"autoscaling": {"pollingIntervalSeconds": 1}}
LABELS = {"app": "theirs"}
THEIRS: Body = {
    "metadata": {"name": "taken-api"},
    "spec": {
        "selector": {"matchLabels": LABELS},
        "template": {"metadata": {"labels": LABELS}, "spec": {"containers": [{"name": "a", "image": "theirs"}]}},
    },
}
OLD = "2026-01-01T00:00:00Z"


def pod_of(cluster: Cluster, deployment: str, status: Body) -> None:
    """Play a kubelet whose pod has that status."""
    labels = deployments(cluster)[deployment]["spec"]["template"]["metadata"]["labels"]
    cluster.pod(f"{deployment}-1", labels, status)


def container(**state: Any) -> Body:
    return {"name": "a", "image": "example.com/taskflow:1.0", "imageID": "", "ready": False, "restartCount": 0} | state


def have_pods_fail(cluster: Cluster) -> None:
    """Write what a kubelet and the controller of Deployments would of an image, a database and a quota."""
    waiting = {"waiting": {"reason": "ErrImagePull", "message": "not found"}}
    pod_of(cluster, "no-image-worker", {"phase": "Pending", "containerStatuses": [container(state=waiting)]})
    unready = {"type": "Ready", "status": "False", "lastTransitionTime": OLD}
    running = {"running": {"startedAt": OLD}}
    status = {"phase": "Running", "conditions": [unready], "containerStatuses": [container(state=running)]}
    pod_of(cluster, "no-database-api", status)
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota: x"}
    cluster.patch(DEPLOYMENT, "quota-worker", {"status": {"conditions": [failure]}}, sub="status")


async def test_what_is_wrong_with_one_cluster_is_said_there_and_holds_up_no_other(
    cluster: Cluster, kubernetes: KubernetesApi, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate(("redis", "own"), start=1):
        url = redis_url.rpartition("/")[0] + f"/{number}"
        cluster.secret(name, url=url)
        with Redis.from_url(url) as redis:
            redis.flushdb()
    cluster.secret("nowhere", url="redis://127.0.0.1:1/0")
    cluster.create("fine", workers=FAST, redis={"urlSecretRef": {"name": "own"}})
    cluster.create("no-secret", auth={"secretRef": {"name": "missing"}})
    cluster.create("no-redis", workers=FAST, redis={"urlSecretRef": {"name": "nowhere"}})
    for name in ("taken", "no-image", "quota", "no-database"):
        cluster.create(name, workers=FAST)
    cluster.post(DEPLOYMENT.path(cluster.namespace), THEIRS)
    async with running_operator(kubernetes, cluster.namespace, make=real_scaler):

        def all_deployed() -> bool:
            cluster.end_jobs()
            cluster.get_ready()
            run = ("fine", "no-redis", "no-image", "quota", "no-database")
            return {f"{name}-{part}" for name in run for part in ("api", "worker")} <= set(deployments(cluster))

        await until(all_deployed, 60)
        have_pods_fail(cluster)
        said = {
            "no-secret": ("Degraded", "True", "SecretMissing"),
            "no-redis": ("BrokerReachable", "False", "RedisUnreachable"),
            "taken": ("Degraded", "True", "NameTaken"),
            "no-image": ("Degraded", "True", "ImagePullFailed"),
            "quota": ("Degraded", "True", "QuotaExceeded"),
            "no-database": ("Degraded", "True", "ApiNotReady"),
        }
        for name, (kind, truth, reason) in said.items():
            await until(lambda: cluster.is_so(kind, truth, reason, name))  # noqa: B023 - awaited before the next one
            assert cluster.condition(kind, name)["message"]
        sharing = ("taken", "no-image", "quota", "no-database")
        await until(
            lambda: sum(cluster.is_so("BrokerReachable", "False", "RedisShared", name) for name in sharing) == 3
        )
        await roll_out(cluster, "fine")
        assert cluster.is_so("Degraded", "False", name="fine")
        await until(lambda: cluster.is_so("BrokerReachable", "True", name="fine"))
    with capsys.disabled():
        sys.stdout.write(f"\n{len(said)} clusters say what is wrong with them, one beside them runs\n")
