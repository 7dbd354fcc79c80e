"""The packaged chart on a cluster that runs pods, in a namespace that is restricted and denies all traffic by default.

The tests run in this order: the last one takes the release away.
"""

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chart.helm import CHART, Helm, Refused, Values
from e2e import operator_pod
from e2e.kube import Body, Kube, require_cluster
from e2e.platform import REPOSITORY, TAG, User, custom_resource
from e2e.stores import POSTGRES_IMAGE, REDIS_IMAGE
from waiting import eventually

RELEASE = "taskflow"
DEFINITION = "crd/taskflowclusters.taskflow.io"
KINDS = (
    "deployments,jobs,pods,services,serviceaccounts,configmaps,secrets,persistentvolumeclaims,roles,rolebindings,"
    "poddisruptionbudgets,networkpolicies,leases,taskflowclusters"
)
OF_EVERY_NAMESPACE = {"serviceaccount/default", "configmap/kube-root-ca.crt", "networkpolicy/default-deny"}
KEPT = {f"secret/{RELEASE}-{name}" for name in ("database", "redis", "auth")}


def values(**workers: Any) -> Values:
    """Return a small platform in development mode, with every policy that the chart has."""
    pool = custom_resource(**workers)["spec"]["workers"]
    repository, _, tag = operator_pod.IMAGE.rpartition(":")
    return {
        "image": {"repository": REPOSITORY, "tag": TAG},
        "operator": {"image": {"repository": repository, "tag": tag}, "replicas": 2},
        "cluster": {"enabled": True, "spec": {"api": {"replicas": 1}, "workers": pool}},
        "development": {
            "enabled": True,
            "postgres": {"image": POSTGRES_IMAGE},
            "valkey": {"image": REDIS_IMAGE},
        },
        "networkPolicy": {"enabled": True},
    }


@dataclass(frozen=True)
class Release:
    """The release and its namespace."""

    helm: Helm
    kube: Kube

    def there(self) -> set[str]:
        """Return what there is in the namespace, but for what was there before."""
        found = self.kube.run("get", KINDS, "-o", "name", "--ignore-not-found").split()
        short = {f"{line.partition('/')[0].partition('.')[0]}/{line.partition('/')[2]}" for line in found}
        return short - OF_EVERY_NAMESPACE

    def upgrade(self, wanted: Values) -> None:
        """Upgrade to other values."""
        self.helm.run("upgrade", RELEASE, str(self.helm.chart), values=wanted, timeout=180)

    def workers(self) -> set[str]:
        """Return the workers that run."""
        return set(self.kube.running_pods(f"taskflow.io/cluster={RELEASE},app.kubernetes.io/component=worker"))


def _namespace(name: str) -> list[Body]:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    deny = {"metadata": {"name": "default-deny"}, "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}},
        {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", **deny},
    ]


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    """Package the chart and install it; nothing of it is on the cluster afterwards, whatever happened."""
    require_cluster()
    kube = Kube(f"chart-{secrets.token_hex(3)}")
    packages: Path = tmp_path_factory.mktemp("packages")
    Helm(kube.namespace).run("package", str(CHART), "--destination", str(packages))
    (package,) = packages.glob("taskflow-*.tgz")
    release = Release(Helm(kube.namespace, package), kube)
    kube.apply(*_namespace(kube.namespace))
    try:
        release.helm.run("install", RELEASE, str(package), "--wait", values=values(), timeout=300)
        yield release
    finally:
        release.helm.run("uninstall", RELEASE, "--ignore-not-found", "--wait", timeout=180)
        kube.run("delete", DEFINITION, "--ignore-not-found", timeout=120)
        kube.run("delete", "namespace", kube.namespace, "--wait=true", timeout=180)


@pytest.fixture
def user(release: Release) -> Iterator[User]:
    """Return a new account."""
    user = User(release.kube, RELEASE)
    user.register()
    yield user
    user.close()


def test_a_task_is_completed_as_the_notes_say(release: Release) -> None:
    release.kube.wait_for("tfc", RELEASE, "Ready", timeout=300)
    said = release.helm.run("test", RELEASE, "--logs", timeout=300)
    assert "Phase:          Succeeded" in said
    assert "COMPLETED" in said


def test_what_the_api_server_refuses_is_in_helms_own_words(release: Release) -> None:
    with pytest.raises(Refused) as refused:
        release.upgrade(values(maxTaskSeconds=600))
    assert "maxTaskSeconds + 30 must not be above terminationGracePeriodSeconds" in str(refused.value)
    assert release.kube.get("tfc", RELEASE)["spec"]["workers"]["maxTaskSeconds"] == 45
    release.kube.run("delete", "job", "-l", "app.kubernetes.io/managed-by=Helm", "--wait=true", timeout=120)


def test_an_upgrade_and_its_rollback_lose_no_task_that_is_under_way(release: Release, user: User) -> None:
    user.submit(20, seconds=15)
    eventually(lambda: user.count("RUNNING") >= 10, timeout=120)
    before = release.workers()
    changed = values(env=[{"name": "TASKFLOW_LOG_LEVEL", "value": "debug"}])
    # Another operator as well, which has rights in this namespace alone.
    release.upgrade(changed | {"watchNamespaces": [release.kube.namespace]})
    eventually(lambda: release.workers() - before, timeout=120)
    user.submit(20, seconds=5)
    release.helm.run("rollback", RELEASE, "1", timeout=180)
    pool = release.kube.get("tfc", RELEASE)["spec"]["workers"]
    assert pool.get("env", []) == []
    eventually(lambda: user.count("COMPLETED") == 40, timeout=180)
    assert [task["id"] for task in user.tasks() if task["attempt"] != 1] == [], "attempts were burned"


def test_an_uninstall_leaves_what_it_says_it_keeps(release: Release) -> None:
    eventually(lambda: not release.workers(), timeout=120)  # they scale to zero; without a database they would drain on
    assert release.there() > KEPT
    started = time.monotonic()
    said = release.helm.run("uninstall", RELEASE, "--wait", timeout=180)
    assert all(name.partition("/")[2] in said for name in KEPT), said
    eventually(lambda: release.there() == KEPT, timeout=180)
    assert time.monotonic() - started < 180
    release.kube.run("get", DEFINITION)
    left = release.kube.run("get", "clusterroles,clusterrolebindings", "-l", f"app.kubernetes.io/instance={RELEASE}")
    assert left == ""
    release.kube.run("delete", DEFINITION, timeout=120)
