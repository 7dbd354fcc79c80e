"""kubectl, as a user would type it, with a deadline on each call."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from waiting import eventually

Body = dict[str, Any]
CALL_S = 60
KIND = Path(__file__).parents[2] / "hack" / "kind.sh"
KIND_S = 600


class Refused(Exception):
    """kubectl left with an error; the text is what it said."""


@dataclass(frozen=True)
class Kube:
    """One namespace of the cluster that KUBECONFIG names."""

    namespace: str

    def run(self, *arguments: str, given: str | None = None, timeout: float = CALL_S) -> str:
        """Run kubectl and return what it printed."""
        done = subprocess.run(
            ["kubectl", "--namespace", self.namespace, *arguments],
            input=given,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            raise Refused(done.stderr.strip())
        return done.stdout

    def apply(self, *bodies: Body) -> None:
        """Apply objects as a user does, from standard input."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(bodies)}
        self.run("apply", "--server-side", "--field-manager=e2e", "-f", "-", given=json.dumps(items))

    def get(self, kind: str, name: str) -> Body:
        """Return one object.

        Raises:
            Refused: there is none.
        """
        found: Body = json.loads(self.run("get", kind, name, "-o", "json"))
        return found

    def find(self, kind: str, selector: str = "") -> list[Body]:
        """Return the objects of a kind."""
        found: list[Body] = json.loads(self.run("get", kind, "-l", selector, "-o", "json"))["items"]
        return found

    def condition(self, kind: str, name: str, wanted: str) -> Body:
        """Return a condition of an object, empty when it has none of that type."""
        conditions = self.get(kind, name).get("status", {}).get("conditions", [])
        return next((entry for entry in conditions if entry["type"] == wanted), {})

    def wait_for(self, kind: str, name: str, condition: str, timeout: float = 180) -> None:
        """Wait until a condition of an object is True."""
        eventually(lambda: self.condition(kind, name, condition).get("status") == "True", timeout=timeout)

    def running_pods(self, selector: str) -> list[str]:
        """Return the names of pods that are not on their way out."""
        pods = self.find("pods", selector)
        return [pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]


def require_cluster() -> None:
    """Talk to the cluster of KUBECONFIG, or else to kind's; end the tests with what is missing, where none answers.

    Without KUBECONFIG the current context of the user is left alone: it may be a cluster that people depend on.
    """
    if "KUBECONFIG" not in os.environ:
        _use_kind()
    try:
        subprocess.run(["kubectl", "get", "nodes"], check=True, capture_output=True, text=True, timeout=30)
    except FileNotFoundError:
        pytest.exit("kubectl is missing: install it, or put the folder that `hack/kube/kube build` prints on PATH", 2)
    except subprocess.SubprocessError as error:
        said = getattr(error, "stderr", "") or str(error)
        pytest.exit(f"no cluster answers: set KUBECONFIG, or run hack/kube/kube up\n{said}", 2)


def _use_kind() -> None:
    if shutil.which("kind") is None:
        pytest.exit("no cluster is named: set KUBECONFIG, install kind, or run hack/kube/kube up", 2)
    os.environ["KUBECONFIG"] = str(Path(tempfile.mkdtemp(prefix="taskflow-kind-"), "kubeconfig"))
    try:
        subprocess.run([KIND, "up"], check=True, capture_output=True, text=True, timeout=KIND_S)
    except subprocess.SubprocessError as error:
        said = getattr(error, "stderr", "") or str(error)
        pytest.exit(f"kind has no cluster for us\n{said}", 2)


def deployment(name: str, container: Body, *, user: int, env: Sequence[tuple[str, str]] = ()) -> Body:
    """Return a Deployment of one pod that the restricted pod security level admits."""
    secured = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "runAsUser": user,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    variables = [{"name": key, "value": value} for key, value in env]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "strategy": {"type": "Recreate"},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "enableServiceLinks": False,
                    "securityContext": {"fsGroup": user},
                    "containers": [{"name": name, "securityContext": secured, "env": variables, **container}],
                },
            },
        },
    }


def service(name: str, port: int) -> Body:
    """Return a Service in front of the Deployment of that name."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": port}]},
    }


def secret(name: str, **values: str) -> Body:
    """Return a Secret; an underscore in a key stands for a hyphen."""
    data = {key.replace("_", "-"): value for key, value in values.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}
