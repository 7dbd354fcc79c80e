"""What the chart renders is taken by a real API server, strictly and without a warning, whatever the values."""

import json
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from chart.conftest import MONITORING
from chart.helm import CHART, Body, Helm, parsed, pods
from chart.value_sets import DIGEST, EVERYTHING, MONITORS, SETS
from cluster.api_server import ApiServer

API_VERSIONS = [part for kind in MONITORING.values() for part in ("--api-versions", f"monitoring.coreos.com/v1/{kind}")]


def platform(bodies: list[Body]) -> Body:
    """Return the TaskFlowCluster that a hook will apply."""
    texts = [body["data"]["taskflowcluster.json"] for body in bodies if "taskflowcluster.json" in body.get("data", {})]
    assert len(texts) == 1
    found: Body = json.loads(texts[0])
    return found


def named(bodies: list[Body], kind: str, name: str) -> Body:
    return next(body for body in bodies if (body["kind"], body["metadata"]["name"]) == (kind, name))


def test_lint_finds_nothing(helm: Helm) -> None:
    assert "0 chart(s) failed" in helm.run("lint", "--strict", str(CHART))


@dataclass(frozen=True)
class Rendered:
    """A set of values, and what comes of it."""

    values: dict[str, Any]
    text: str
    bodies: list[Body]


@pytest.fixture(scope="module", params=[pytest.param(values, id=name) for name, values in SETS.items()])
def rendered(helm: Helm, request: pytest.FixtureRequest) -> Rendered:
    """Render the chart once for each set of values."""
    text = helm.run("template", "taskflow", str(CHART), *API_VERSIONS, values=request.param)
    return Rendered(request.param, text, parsed(text))


def test_the_api_server_takes_every_object(api_server: ApiServer, helm: Helm, rendered: Rendered) -> None:
    text, count = rendered.text, len(rendered.bodies)
    if rendered.values.get("cluster"):
        text, count = f"{text}\n---\n{json.dumps(platform(rendered.bodies))}\n", count + 1
    strictly = ("--dry-run=server", "--validate=strict", "--warnings-as-errors")
    tried = api_server.kubectl("apply", "--namespace", helm.namespace, *strictly, "-f", "-", text=text)
    assert tried.returncode == 0, tried.stderr
    assert len(tried.stdout.splitlines()) == count


def test_no_pod_has_more_than_it_needs(rendered: Rendered) -> None:
    with_token = []
    for name, spec in pods(rendered.bodies):
        assert spec["enableServiceLinks"] is False, name
        assert spec["securityContext"]["runAsUser"] in {65532, 999}, name
        if spec["automountServiceAccountToken"] is not False:
            with_token.append(name)
        for container in spec["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True, name
            assert container["resources"]["requests"], name
            assert container["resources"]["limits"]["memory"], name
    brought = rendered.values.get("operator", {}).get("enabled", True)
    assert len(with_token) == (1 if brought else 0), with_token


def test_the_definition_is_the_generated_one(helm: Helm) -> None:
    made = named(helm.template({}), "CustomResourceDefinition", "taskflowclusters.taskflow.io")
    generated = yaml.safe_load((CHART / "files" / "crd.yaml").read_text())
    assert made["spec"] == generated["spec"]
    assert made["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_the_roles_hold_the_generated_rules(helm: Helm) -> None:
    generated = {
        role["kind"]: role["rules"] for role in yaml.safe_load_all((CHART / "files" / "rbac.yaml").read_text())
    }
    everywhere = helm.template({})
    assert named(everywhere, "ClusterRole", "taskflow-operator")["rules"] == generated["ClusterRole"]
    assert named(everywhere, "Role", "taskflow-operator-lease")["rules"] == generated["Role"]
    some = helm.template({"watchNamespaces": ["one", "two"]})
    made = [body for body in some if body["kind"] == "Role" and body["metadata"]["name"] == "taskflow-operator"]
    assert [role["metadata"]["namespace"] for role in made] == ["one", "two"]
    assert [role["rules"] for role in made] == [generated["ClusterRole"]] * 2
    assert {"ClusterRole", "ClusterRoleBinding"}.isdisjoint(body["kind"] for body in some)


def test_values_reach_the_pods_and_the_platform(helm: Helm) -> None:
    bodies = helm.template(EVERYTHING, *API_VERSIONS)
    operator = named(bodies, "Deployment", "tf-operator")["spec"]
    spec = operator["template"]["spec"]
    assert operator["replicas"] == 2
    assert spec["serviceAccountName"] == "robot"
    assert spec["containers"][0]["image"] == f"taskflow/operator:0.1.0@{DIGEST}"
    for name, pod in pods(bodies):
        assert pod["priorityClassName"] == EVERYTHING["priorityClassName"], name
        assert pod["tolerations"] == EVERYTHING["tolerations"], name
        assert pod["nodeSelector"] == EVERYTHING["nodeSelector"], name
        assert pod["imagePullSecrets"] == [{"name": "registry"}], name
    shop = platform(bodies)
    assert shop["metadata"]["annotations"] == {"taskflow.io/force-active": "true"}
    assert shop["spec"]["image"] == {
        "repository": "registry.example.com/taskflow/platform",
        "digest": DIGEST,
        "pullPolicy": "IfNotPresent",
        "pullSecrets": ["registry"],
    }
    assert shop["spec"]["api"]["pdb"] == {"enabled": False}
    assert {body["metadata"]["name"] for body in bodies if body["kind"] == "ConfigMap"} >= {
        "taskflow-extra",
        "taskflow-text",
    }


def test_alerts_and_dashboards_are_those_of_the_files(helm: Helm) -> None:
    bodies = helm.template({"monitoring": MONITORS}, *API_VERSIONS)
    files = CHART / "files" / "monitoring"
    rules = (files / "rules.yaml").read_text().replace('"docs/', '"https://example.com/taskflow/docs/')
    made = named(bodies, "PrometheusRule", "taskflow")
    assert made["spec"] == yaml.safe_load(rules)
    assert made["metadata"]["labels"]["role"] == "alerts"
    dashboards = [body for body in bodies if body["metadata"].get("labels", {}).get("grafana_dashboard") == "1"]
    shown = {name: json.loads(text) for body in dashboards for name, text in body["data"].items()}
    assert shown == {file.name: json.loads(file.read_text()) for file in (files / "dashboards").glob("*.json")}
    assert len(dashboards) == len(shown) > 1


def test_every_pod_of_a_closed_network_has_its_way_out_and_in(helm: Helm) -> None:
    bodies = helm.template(EVERYTHING, *API_VERSIONS)
    policies = [body for body in bodies if body["kind"] == "NetworkPolicy"]
    own: dict[str, Any] = {}
    for body in policies:
        component = body["spec"]["podSelector"].get("matchLabels", {}).get("app.kubernetes.io/component")
        own[component or body["metadata"]["name"]] = body["spec"]
    assert set(own) == {
        "operator", "postgres", "valkey", "cluster", "test", "api", "shop-platform", "shop-platform-outside"
    }  # fmt: skip

    def ports(rules: list[Body]) -> set[int]:
        return {port["port"] for rule in rules for port in rule.get("ports", [])}

    assert ports(own["operator"]["egress"]) == {53, 443, 6443, 6379}
    assert ports(own["shop-platform"]["egress"]) == {53, 5432, 6379}
    assert own["shop-platform-outside"]["egress"] == [{}]
    assert ports(own["api"]["ingress"]) == {8000}
    assert ports(own["shop-platform"]["ingress"]) == {8001}
    assert ports(own["test"]["egress"]) == {53, 8000}
    assert ports(own["cluster"]["egress"]) == {53, 443, 6443}
    for store in ("postgres", "valkey"):
        assert own[store]["policyTypes"] == ["Ingress", "Egress"]
        assert "egress" not in own[store]
