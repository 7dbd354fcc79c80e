"""What releases do to each other and to what they keep, on a real API server: no pod runs, so hooks are left out."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from chart.conftest import NAMESPACE, TENANT
from chart.helm import CHART, Helm, Refused
from chart.test_apply_hook import manifest
from cluster.api_server import ApiServer
from waiting import eventually

DEFINITION = "crd/taskflowclusters.taskflow.io"
TRY_OUT: dict[str, Any] = {"cluster": {"enabled": True}, "development": {"enabled": True}}
STORES = ("database", "redis", "auth")


@pytest.fixture
def release(helm: Helm) -> Iterator[Helm]:
    """Return helm with a release `taskflow`, which took over the definition that kubectl had applied."""
    helm.run("install", "taskflow", str(CHART), "--no-hooks", "--take-ownership", "--force-conflicts")
    yield helm
    helm.run("uninstall", "taskflow", "--ignore-not-found", "--no-hooks")


def change(helm: Helm, what: str, values: dict[str, Any]) -> None:
    helm.run(what, "taskflow", str(CHART), "--no-hooks", values=values)


def there(server: ApiServer, helm: Helm, kinds: str) -> set[str]:
    """Return what there is of these kinds, but for what every namespace has."""
    shown = server.kubectl("get", kinds, "--namespace", helm.namespace, "-o", "name")
    assert shown.returncode == 0, shown.stderr
    return {line.partition("/")[2] for line in shown.stdout.split()} - {"kube-root-ca.crt", "default", TENANT}


def secret(server: ApiServer, helm: Helm, name: str) -> dict[str, str]:
    shown = server.kubectl("get", "secret", name, "--namespace", helm.namespace, "-o", "yaml")
    assert shown.returncode == 0, shown.stderr
    found: dict[str, str] = yaml.safe_load(shown.stdout)["data"]
    return found


def test_an_upgrade_that_would_leave_platforms_without_their_definition_is_refused(
    api_server: ApiServer, release: Helm
) -> None:
    made = api_server.kubectl("create", "-f", "-", text=yaml.safe_dump(manifest()))
    assert made.returncode == 0, made.stderr
    with pytest.raises(Refused) as refused:
        change(release, "upgrade", {"crds": {"install": False}})
    assert "crds.install: this release brought the CustomResourceDefinition, and 1 TaskFlowCluster(s)" in str(
        refused.value
    )
    assert "(hook in chart): leave it true" in str(refused.value)
    change(release, "upgrade", {"operator": {"replicas": 2}})
    api_server.kubectl("delete", "tfc/hook", "--namespace", release.namespace)
    change(release, "upgrade", {"crds": {"install": False}})
    assert api_server.kubectl("get", DEFINITION).returncode == 0


def test_the_definition_can_be_handed_over(api_server: ApiServer, release: Helm) -> None:
    made = api_server.kubectl("create", "-f", "-", text=yaml.safe_dump(manifest()))
    assert made.returncode == 0, made.stderr
    handed = api_server.kubectl("delete", "configmap", "taskflow-crds", "--namespace", release.namespace)
    assert handed.returncode == 0, handed.stderr
    change(release, "upgrade", {"crds": {"install": False}})
    assert api_server.kubectl("get", "tfc/hook", "--namespace", release.namespace).returncode == 0
    api_server.kubectl("delete", "tfc/hook", "--namespace", release.namespace)


def test_generated_secrets_survive_upgrades_and_the_release(api_server: ApiServer, release: Helm) -> None:
    change(release, "upgrade", TRY_OUT)
    first = {name: secret(api_server, release, f"taskflow-{name}") for name in STORES}
    account = secret(api_server, release, "taskflow-test")
    change(release, "upgrade", {**TRY_OUT, "operator": {"logLevel": "debug"}})
    assert {name: secret(api_server, release, f"taskflow-{name}") for name in STORES} == first
    assert secret(api_server, release, "taskflow-test") == account
    release.run("uninstall", "taskflow", "--no-hooks")
    kept = {f"taskflow-{name}" for name in STORES}
    eventually(lambda: there(api_server, release, "secrets") == kept)
    change(release, "install", TRY_OUT)
    assert {name: secret(api_server, release, f"taskflow-{name}") for name in STORES} == first


def test_whoever_has_one_namespace_installs_for_that_one(api_server: ApiServer) -> None:
    tenant = Helm(NAMESPACE, env={"KUBECONFIG": str(api_server.kubeconfig(TENANT))})
    alone = TRY_OUT | {"watchNamespaces": [NAMESPACE], "crds": {"install": False}, "networkPolicy": {"enabled": True}}
    change(tenant, "install", alone)
    change(tenant, "upgrade", alone | {"operator": {"replicas": 2}})
    with pytest.raises(Refused, match="is forbidden"):
        change(tenant, "upgrade", TRY_OUT)
    tenant.run("uninstall", "taskflow", "--no-hooks")


def test_an_uninstall_leaves_nothing_but_the_definition(api_server: ApiServer, release: Helm) -> None:
    kinds = "deployments,configmaps,serviceaccounts,roles,rolebindings,leases,poddisruptionbudgets,networkpolicies"
    assert {"taskflow-crds", "taskflow-operator", "taskflow-operator-lease"} == there(api_server, release, kinds)
    release.run("uninstall", "taskflow")
    # Without a controller nobody collects what background deletion left; the API server itself took all of these.
    eventually(lambda: there(api_server, release, kinds) == set())
    roles = api_server.kubectl("get", "clusterroles,clusterrolebindings", "-l", "app.kubernetes.io/instance=taskflow")
    assert roles.stdout == ""
    assert api_server.kubectl("get", DEFINITION).returncode == 0
