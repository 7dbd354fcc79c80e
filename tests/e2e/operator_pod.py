"""The operator as a pod with the roles that the repository ships, in a namespace of its own."""

import os
from pathlib import Path
from typing import Any

import yaml

from e2e.kube import Body, Kube, deployment

FILES = Path(__file__).parents[2] / "charts" / "taskflow" / "files"
IMAGE = os.environ.get("TASKFLOW_OPERATOR_IMAGE", "taskflow/operator:dev")
NAME = "taskflow-operator"
PROBE_PORT = 8080


def definition() -> str:
    """Return the CustomResourceDefinition as it is shipped."""
    return (FILES / "crd.yaml").read_text()


def objects(namespace: str) -> list[Body]:
    """Return the operator, its account, and the bindings of its roles."""
    rules: list[Any] = list(yaml.safe_load_all((FILES / "rbac.yaml").read_text()))
    subject = {"kind": "ServiceAccount", "name": NAME, "namespace": namespace}
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": NAME}}
    return [account, *rules, *(_binding(rule, subject) for rule in rules), _deployment(namespace)]


def remove(kube: Kube) -> None:
    """Take away what is not inside the operator's namespace."""
    kube.run("delete", "clusterrolebinding,clusterrole", NAME, "--ignore-not-found")
    kube.run("delete", "crd", "taskflowclusters.taskflow.io", "--ignore-not-found")


def _binding(rule: Body, subject: Body) -> Body:
    kind, name = rule["kind"], rule["metadata"]["name"]
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": f"{kind}Binding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
        "subjects": [subject],
    }


def _deployment(namespace: str) -> Body:
    container = {
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "args": ["taskflow", "operator"],
        "livenessProbe": {"httpGet": {"path": "/health/live", "port": PROBE_PORT}, "initialDelaySeconds": 20},
    }
    env = [("TASKFLOW_OPERATOR_NAMESPACE", namespace), ("TASKFLOW_PROBE_PORT", str(PROBE_PORT))]
    made = deployment(NAME, container, user=65532, env=env)
    made["spec"]["template"]["spec"]["serviceAccountName"] = NAME
    return made
