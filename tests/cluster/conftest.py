"""Fixtures: one API server a session with the CRD and the operator's roles, a namespace a test."""

import re
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import yaml

from cluster.api_server import ApiServer, running_api_server
from cluster.world import Cluster
from taskflow_operator.cluster import KubernetesApi
from waiting import eventually

FILES = Path(__file__).parents[2] / "charts" / "taskflow" / "files"
GROUP, OPERATOR, NEXT_OPERATOR = "operators", "operator", "operator-2"


USERS = {"admin": "system:masters", OPERATOR: GROUP, NEXT_OPERATOR: GROUP}


@pytest.fixture(scope="session")
def api_server() -> Iterator[ApiServer]:
    """Run an API server that knows TaskFlowClusters."""
    with (
        tempfile.TemporaryDirectory(prefix="taskflow-cluster-") as folder,
        running_api_server(Path(folder), USERS) as server,
    ):
        made = server.kubectl("apply", "-f", str(FILES / "crd.yaml"))
        assert made.returncode == 0, made.stderr
        eventually(lambda: server.kubectl("get", "tfc", "-A").returncode == 0)
        made = server.kubectl("apply", "-f", "-", text=bound_roles())
        assert made.returncode == 0, made.stderr
        yield server


def bound_roles() -> str:
    """Return the checked-in roles and their bindings to the operators' group."""
    roles = list(yaml.safe_load_all((FILES / "rbac.yaml").read_text()))
    bindings = [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": f"{role['kind']}Binding",
            "metadata": {"name": role["metadata"]["name"]},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": role["kind"],
                "name": role["metadata"]["name"],
            },
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": GROUP}],
        }
        for role in roles
    ]
    return str(yaml.safe_dump_all([*roles, *bindings]))


@pytest.fixture
async def kubernetes(api_server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[KubernetesApi]:
    """Return the API as the operator's own user, with no more rights than it has."""
    monkeypatch.setenv("KUBECONFIG", str(api_server.kubeconfig(OPERATOR)))
    api = await KubernetesApi.connect()
    yield api
    await api.close()


@pytest.fixture(scope="module")
def namespace(api_server: ApiServer) -> Iterator[Cluster]:
    """Return a namespace that the tests of a module share, for what the API server refuses."""
    with api_server.client() as client:
        world = Cluster(client, f"shared-{uuid4().hex[:6]}")
        world.post("/api/v1/namespaces", {"metadata": {"name": world.namespace}})
        yield world


@pytest.fixture
def cluster(api_server: ApiServer, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Return a namespace of the test's own, with the Secrets that a TaskFlowCluster needs."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:30].strip("-")
    with api_server.client() as client:
        world = Cluster(client, f"{name}-{uuid4().hex[:6]}")
        world.prepare()
        yield world
        world.clean()
