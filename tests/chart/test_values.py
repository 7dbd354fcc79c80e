"""Wrong values are refused in words, before anything is installed; values.yaml, its schema and the README agree."""

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from chart.helm import CHART, Helm, Refused
from chart.value_sets import OWN_SECRETS
from chart.values_table import HEAD, defaults, readme, rows, schema

ROOT = Path(__file__).parents[2]
OFFLINE = Helm("shop", env={"KUBECONFIG": "/dev/null"})


def with_spec(**spec: Any) -> dict[str, Any]:
    return {"cluster": OWN_SECRETS | {"spec": spec}}


BAD: dict[str, tuple[dict[str, Any], list[str]]] = {
    "an unknown value": ({"replicas": 3}, ["at ''", "'replicas' not allowed"]),
    "an unknown value of a part": ({"cluster": {"enabeld": True}}, ["at '/cluster'", "'enabeld' not allowed"]),
    "an unknown kind of resource": ({"operator": {"resources": {"cpu": 1}}}, ["at '/operator/resources'", "'cpu'"]),
    "no replica": ({"operator": {"replicas": 0}}, ["at '/operator/replicas'", "want 1"]),
    "a word for a number": ({"operator": {"replicas": "two"}}, ["at '/operator/replicas'", "want integer"]),
    "a word for yes": ({"crds": {"install": "yes"}}, ["at '/crds/install'", "want boolean"]),
    "half a digest": ({"image": {"digest": "sha256:12"}}, ["at '/image/digest'", "does not match"]),
    "a tag in the name of an image": ({"image": {"tag": "a b"}}, ["at '/image/tag'"]),
    "a level that logs do not have": ({"operator": {"logLevel": "loud"}}, ["at '/operator/logLevel'", "'warning'"]),
    "a namespace that cannot be": ({"watchNamespaces": ["Shop"]}, ["at '/watchNamespaces/0'"]),
    "a port that cannot be": ({"networkPolicy": {"redisPorts": [0]}}, ["at '/networkPolicy/redisPorts/0'"]),
    "labels that the chart sets": (
        {"commonLabels": {"app.kubernetes.io/name": "x"}},
        ["at '/commonLabels/app.kubernetes.io~1name'"],
    ),
    "a name that leaves no room": ({"cluster": {"name": "x" * 41}}, ["at '/cluster/name'", "want 40"]),
    "a platform without a database": (
        {"cluster": OWN_SECRETS | {"database": {}}},
        [
            "cluster.database.existingSecret: name a Secret of the namespace shop",
            "kubectl -n shop create secret generic taskflow-database --from-literal=url=postgresql://",
            "development.enabled=true",
        ],
    ),
    "a platform without anything": (
        {"cluster": {"enabled": True}},
        ["cluster.database.existingSecret", "cluster.redis.existingSecret", "cluster.auth.existingSecret"],
    ),
    "a platform that nobody looks after": (
        {"cluster": OWN_SECRETS, "watchNamespaces": ["other"]},
        ["watchNamespaces: the platform of cluster.enabled is in the namespace shop"],
    ),
    "two places for one thing": (with_spec(image={"tag": "1"}), ["cluster.spec.image: set image instead"]),
    "an unknown field of the platform": (
        with_spec(workers={"autoscaling": {"minReplica": 1}}),
        ["cluster.spec.workers.autoscaling.minReplica: there is no such field", "minReplicas"],
    ),
    "several mistakes at once": (
        with_spec(
            workers={"concurrency": "many", "replicas": 1001, "queues": ["High"]}, api={"service": {"type": "X"}}
        ),
        [
            'cluster.spec.workers.concurrency: must be integer, got "many"',
            "cluster.spec.workers.replicas: must be at most 1000, got 1001",
            "cluster.spec.workers.queues[0]: must match",
            "cluster.spec.api.service.type: must be one of ClusterIP, NodePort, LoadBalancer, got X",
        ],
    ),
    "a part that is missing": (
        with_spec(extraPools=[{"queues": ["a"]}]),
        ["cluster.spec.extraPools[0].name: is missing"],
    ),
    "half a replica": (
        with_spec(scheduler={"replicas": 1.5}),
        ["cluster.spec.scheduler.replicas: must be integer, got 1.5"],
    ),
    "too few of something": (
        with_spec(api={"replicas": 0}),
        ["cluster.spec.api.replicas: must be at least 1, got 0"],
    ),
    "a list for a text": (
        with_spec(workers={"resources": {"limits": {"memory": ["1Gi"]}}}),
        ["cluster.spec.workers.resources.limits.memory: must be a number or a string"],
    ),
    "monitors where nobody reads them": (
        {"monitoring": {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}}},
        ["monitoring.serviceMonitor.enabled: this cluster does not know the kind ServiceMonitor", "PodMonitor"],
    ),
    "alerts where nobody reads them": (
        {"monitoring": {"prometheusRule": {"enabled": True}}},
        ["monitoring.prometheusRule.enabled: this cluster does not know the kind PrometheusRule"],
    ),
}


@pytest.mark.parametrize(("values", "words"), [pytest.param(*case, id=name) for name, case in BAD.items()])
def test_a_wrong_value_is_named(values: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(Refused) as refused:
        OFFLINE.template(values)
    said = str(refused.value)
    assert [word for word in words if word not in said] == [], said


def objects(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        if node.get("type") == "object":
            yield path, node
        for name, child in node.items():
            yield from objects(child, f"{path}/{name}")


def test_the_schema_knows_every_value_and_refuses_all_others() -> None:
    assert list(rows(schema(), defaults()))
    parts = dict(objects(schema()))
    free = {path for path, node in parts.items() if "additionalProperties" not in node}
    # What Kubernetes itself describes, and the spec that is held against the CustomResourceDefinition.
    kubernetes = ("tolerations", "topologySpreadConstraints", "env", "apiFrom", "metricsFrom")
    assert free == {
        "/properties/global",
        "/$defs/free",
        "/properties/cluster/properties/spec",
        "/properties/tolerations/items",
        *(f"/properties/operator/properties/{name}/items" for name in kubernetes[1:3]),
        *(f"/properties/networkPolicy/properties/{name}/items" for name in kubernetes[3:]),
    }
    described = [path for path, node in parts.items() if "/$defs" not in path and "/items" not in path and path]
    assert [path for path in described if not parts[path].get("description")] == []


def test_the_readme_has_every_value_with_its_default() -> None:
    text = (CHART / "README.md").read_text()
    assert HEAD in text
    assert readme(text) == text, "run make chart-table"


def test_the_chart_is_of_the_version_of_the_package() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert chart["appVersion"] == version
    assert f"taskflow/platform:{version}" in chart["annotations"]["artifacthub.io/images"]


def test_the_example_of_the_catalogue_is_a_platform_that_the_definition_knows() -> None:
    annotations = yaml.safe_load((CHART / "Chart.yaml").read_text())["annotations"]
    (example,) = yaml.safe_load(annotations["artifacthub.io/crdsExamples"])
    definition = yaml.safe_load((CHART / "files" / "crd.yaml").read_text())["spec"]
    spec = definition["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    assert (example["apiVersion"], example["kind"]) == (f"{definition['group']}/v1alpha1", definition["names"]["kind"])
    assert set(spec["required"]) <= set(example["spec"]) <= set(spec["properties"]), json.dumps(example)
