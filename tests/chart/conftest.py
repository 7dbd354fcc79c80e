"""Fixtures: helm, and an API server that knows the kinds of the chart and of the Prometheus Operator."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from chart.helm import CHART, Helm, require_helm
from cluster.api_server import ApiServer, running_api_server
from waiting import eventually

NAMESPACE = "chart"
TENANT = "tenant"
MONITORING = {"servicemonitors": "ServiceMonitor", "podmonitors": "PodMonitor", "prometheusrules": "PrometheusRule"}


@pytest.fixture(scope="session", autouse=True)
def _helm() -> None:
    require_helm()


@pytest.fixture(scope="session")
def api_server() -> Iterator[ApiServer]:
    """Run an API server without nodes; its namespace `chart` is restricted, and all a tenant has."""
    labels = {"pod-security.kubernetes.io/warn": "restricted", "pod-security.kubernetes.io/enforce": "restricted"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}
    definitions = [monitoring_definition(plural, kind) for plural, kind in MONITORING.items()]
    rights = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": TENANT, "namespace": NAMESPACE},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": TENANT}],
    }
    own = yaml.safe_load((CHART / "files" / "crd.yaml").read_text())
    with (
        tempfile.TemporaryDirectory(prefix="taskflow-chart-") as folder,
        running_api_server(Path(folder), {"admin": "system:masters", TENANT: "tenants"}) as server,
    ):
        made = server.kubectl(
            "apply", "--server-side", "-f", "-", text=yaml.safe_dump_all([namespace, rights, own, *definitions])
        )
        assert made.returncode == 0, made.stderr
        eventually(lambda: server.kubectl("get", ",".join(["taskflowclusters", *MONITORING]), "-A").returncode == 0)
        yield server


@pytest.fixture(scope="session")
def helm(api_server: ApiServer) -> Helm:
    """Return helm in that namespace."""
    return Helm(NAMESPACE, env={"KUBECONFIG": str(api_server.kubeconfig())})


def monitoring_definition(plural: str, kind: str) -> dict[str, Any]:
    """Return as much of a kind of the Prometheus Operator as the chart uses; other fields are refused by strictness."""
    text: dict[str, Any] = {"type": "string"}
    free = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    names = {"type": "array", "items": text}
    endpoint = {"type": "object", "properties": {"port": text, "path": text, "interval": text}, "required": ["port"]}
    endpoints = {"type": "array", "items": endpoint}
    rule = {
        "type": "object",
        "required": ["expr"],
        "properties": {
            **dict.fromkeys(("alert", "record", "expr", "for", "keep_firing_for"), text),
            **{name: {"type": "object", "additionalProperties": text} for name in ("labels", "annotations")},
        },
    }
    group = {
        "type": "object",
        "required": ["name"],
        "properties": {"name": text, "interval": text, "rules": {"type": "array", "items": rule}},
    }
    watched = {"type": "object", "properties": {"any": {"type": "boolean"}, "matchNames": names}}
    picked = {"selector": free, "namespaceSelector": watched}
    spec = {
        "ServiceMonitor": {"endpoints": endpoints, "targetLabels": names, **picked},
        "PodMonitor": {"podMetricsEndpoints": endpoints, "podTargetLabels": names, **picked},
        "PrometheusRule": {"groups": {"type": "array", "items": group}},
    }[kind]
    schema = {"type": "object", "required": ["spec"], "properties": {"spec": {"type": "object", "properties": spec}}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.monitoring.coreos.com"},
        "spec": {
            "group": "monitoring.coreos.com",
            "scope": "Namespaced",
            "names": {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()},
            "versions": [version],
        },
    }
