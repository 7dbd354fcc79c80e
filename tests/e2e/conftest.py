"""Fixtures: the operator and one platform a session, on the cluster that kubectl talks to."""

import secrets
import time
from collections.abc import Callable, Iterator

import pytest

from e2e import operator_pod, stores
from e2e.kube import Kube, require_cluster, secret
from e2e.platform import NAME, User, custom_resource

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
Say = Callable[[str], None]


@pytest.fixture(scope="session")
def say(request: pytest.FixtureRequest) -> Say:
    """Print a line of figures, whatever pytest captures."""
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def line(text: str) -> None:
        with capture.global_and_fixture_disabled():
            print(f"\n  {text}", flush=True)  # noqa: T201 - the figures of the run

    return line


@pytest.fixture(scope="session")
def cluster() -> None:
    """Refuse to start where there is no cluster."""
    require_cluster()


def _namespace(prefix: str) -> Iterator[Kube]:
    kube = Kube(f"{prefix}-{secrets.token_hex(3)}")
    labels = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": kube.namespace, "labels": RESTRICTED}}
    kube.apply(labels)
    yield kube
    kube.run("delete", "namespace", kube.namespace, "--wait=true", timeout=180)


@pytest.fixture(scope="session")
def operator(cluster: None) -> Iterator[Kube]:
    """Run the operator and return its namespace."""
    for kube in _namespace("taskflow-operator"):
        kube.run("apply", "--server-side", "--force-conflicts", "-f", "-", given=operator_pod.definition())
        kube.run("wait", "--for=condition=Established", "crd/taskflowclusters.taskflow.io", "--timeout=60s")
        kube.apply(*operator_pod.objects(kube.namespace))
        kube.wait_for("deployment", operator_pod.NAME, "Available")
        yield kube
        operator_pod.remove(kube)


@pytest.fixture(scope="session")
def kube(operator: Kube) -> Iterator[Kube]:
    """Return the namespace of the platform, with PostgreSQL, Valkey and the Secrets in it."""
    for kube in _namespace("taskflow-e2e"):
        database, redis = secrets.token_hex(12), secrets.token_hex(12)
        kube.apply(
            secret("database", url=f"postgresql://taskflow:{database}@postgres:5432/taskflow"),
            secret("redis", url=f"redis://:{redis}@redis:6379/0"),
            secret("keys", jwt_secret=secrets.token_urlsafe(48)),
            *stores.postgres(database),
            *stores.redis(redis),
        )
        for name in ("postgres", "redis"):
            kube.wait_for("deployment", name, "Available")
        yield kube


@pytest.fixture(scope="session")
def platform(kube: Kube, say: Say) -> Kube:
    """Apply the TaskFlowCluster as a user does, and wait until it is Ready."""
    started = time.monotonic()
    kube.apply(custom_resource())
    kube.wait_for("tfc", NAME, "Ready", timeout=300)
    say(f"Ready {time.monotonic() - started:.0f} s after kubectl apply (migration, API, scheduler)")
    return kube


@pytest.fixture
def user(platform: Kube) -> Iterator[User]:
    """Return a new account."""
    user = User(platform)
    user.register()
    yield user
    user.close()
