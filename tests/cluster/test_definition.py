"""The CRD on a real API server: what it refuses, with which words, and what it adds."""

import copy
import json
from typing import Any

import pytest

from cluster.api_server import ApiServer
from cluster.world import Cluster
from operator_world import NEEDED
from taskflow_operator.kinds import CLUSTER
from taskflow_operator.spec import Spec

OMIT = object()


def changed(path: str, value: Any) -> dict[str, Any]:
    """Return a good spec with one value changed, or left out."""
    spec: dict[str, Any] = copy.deepcopy(NEEDED)
    *parents, last = path.split(".")
    node = spec
    for parent in parents:
        node = node.setdefault(parent, {})
    if value is OMIT:
        del node[last]
    else:
        node[last] = value
    return spec


def steps(**changes: Any) -> list[dict[str, Any]]:
    return [{"type": "Pods", "value": 1, "periodSeconds": 60} | changes]


# Which field, what is wrong with it, and the words beside the field's name that the API server must answer with.
INVALID = [
    ("image", OMIT, "spec.image: Required value"),
    ("image.repository", OMIT, "spec.image.repository: Required value"),
    ("image.repository", "", "spec.image.repository"),
    ("image.repository", "has spaces", "spec.image.repository"),
    ("image.tag", OMIT, "image: set tag or digest"),
    ("image.tag", "-no", "spec.image.tag"),
    ("image.digest", "sha256:short", "spec.image.digest"),
    ("image.pullPolicy", "Sometimes", "spec.image.pullPolicy"),
    ("image.pullSecrets", ["s"] * 9, "spec.image.pullSecrets"),
    ("database", OMIT, "spec.database: Required value"),
    ("database.urlSecretRef", OMIT, "spec.database.urlSecretRef: Required value"),
    ("database.urlSecretRef.name", "Not_A_Name", "spec.database.urlSecretRef.name"),
    ("database.urlSecretRef.key", "with space", "spec.database.urlSecretRef.key"),
    ("redis", OMIT, "spec.redis: Required value"),
    ("redis.urlSecretRef.name", "", "spec.redis.urlSecretRef.name"),
    ("auth", OMIT, "spec.auth: Required value"),
    ("auth.secretRef", OMIT, "spec.auth.secretRef: Required value"),
    ("suspend", "yes", "spec.suspend"),
    ("api.replicas", 0, "spec.api.replicas"),
    ("api.replicas", 101, "spec.api.replicas"),
    ("api.service.type", "ExternalName", "spec.api.service.type"),
    ("api.service.port", 70_000, "spec.api.service.port"),
    ("api.ingress.enabled", True, "ingress: set host when enabled is true"),
    ("api.pdb.maxUnavailable", 0, "spec.api.pdb.maxUnavailable"),
    ("api.env", [{"name": "1BAD", "value": "x"}], "spec.api.env[0].name"),
    ("api.env", [{"name": "A"}], "env: set exactly one of value and valueFrom"),
    ("api.env", [{"name": "TASKFLOW_JWT_SECRET", "value": "x"}], "env: this variable is set by the operator"),
    ("api.resources.requests", {"cpu": "many"}, "spec.api.resources.requests"),
    ("api.podTemplate.runAsUser", 0, "spec.api.podTemplate.runAsUser"),
    ("scheduler.replicas", 0, "spec.scheduler.replicas"),
    ("workers.queues", [], "spec.workers.queues"),
    ("workers.queues", ["a", "a"], "spec.workers.queues"),
    ("workers.queues", ["Upper"], "spec.workers.queues[0]"),
    ("workers.queues", [f"q{number}" for number in range(33)], "spec.workers.queues"),
    ("workers.concurrency", 0, "spec.workers.concurrency"),
    ("workers.concurrency", 1001, "spec.workers.concurrency"),
    ("workers.concurrency", "4", "spec.workers.concurrency"),
    ("workers.replicas", -1, "spec.workers.replicas"),
    ("workers.terminationGracePeriodSeconds", 10, "spec.workers.terminationGracePeriodSeconds"),
    ("workers.maxTaskSeconds", 600, "maxTaskSeconds + 30 must not be above terminationGracePeriodSeconds"),
    ("workers.env", [{"name": "TASKFLOW_SLOTS", "value": "9"}], "env: this variable is set by the operator"),
    ("workers.autoscaling.mode", "Magic", "spec.workers.autoscaling.mode"),
    ("workers.autoscaling.minReplicas", 11, "minReplicas must not be above maxReplicas"),
    ("workers.autoscaling.maxReplicas", 0, "spec.workers.autoscaling.maxReplicas"),
    ("workers.autoscaling.minIdle", 11, "minIdle must not be above maxReplicas"),
    ("workers.autoscaling.pollingIntervalSeconds", 0, "spec.workers.autoscaling.pollingIntervalSeconds"),
    ("workers.autoscaling.tasksPerSlot", 0, "spec.workers.autoscaling.tasksPerSlot"),
    ("workers.autoscaling.latencySLOSeconds", 0, "spec.workers.autoscaling.latencySLOSeconds"),
    ("workers.autoscaling.tolerancePercent", 101, "spec.workers.autoscaling.tolerancePercent"),
    ("workers.autoscaling.fallback.behavior", "Static", "fallback: Static and AtLeast need replicas"),
    ("workers.autoscaling.fallback.failureThreshold", 0, "spec.workers.autoscaling.fallback.failureThreshold"),
    ("workers.autoscaling.behavior.scaleDown.policies", [], "behavior.scaleDown.policies"),
    ("workers.autoscaling.behavior.scaleUp.policies", steps(type="Both"), "scaleUp.policies[0].type"),
    ("workers.autoscaling.behavior.scaleUp.policies", steps(periodSeconds=1801), "policies[0].periodSeconds"),
    ("workers.autoscaling.behavior.scaleUp.stabilizationWindowSeconds", 3601, "stabilizationWindowSeconds"),
    ("extraPools", [{}], "spec.extraPools[0].name: Required value"),
    ("extraPools", [{"name": "a"}, {"name": "a"}], "spec.extraPools[1]: Duplicate value"),
    ("extraPools", [{"name": "default"}], "the name default is that of spec.workers"),
    ("extraPools", [{"name": "Slow_One"}], "spec.extraPools[0].name"),
    ("extraPools", [{"name": f"p{number}"} for number in range(17)], "spec.extraPools"),
    ("monitoring.podMonitor.intervalSeconds", 0, "spec.monitoring.podMonitor.intervalSeconds"),
    ("networkPolicy.enabled", "maybe", "spec.networkPolicy.enabled"),
]


@pytest.mark.parametrize(
    ("path", "value", "words"), INVALID, ids=[f"{path}-{n}" for n, (path, *_) in enumerate(INVALID)]
)
def test_a_wrong_spec_is_refused_with_words_that_name_the_field(
    namespace: Cluster, path: str, value: Any, words: str
) -> None:
    answer = namespace.try_create(changed(path, value))
    assert answer.status_code == 422, answer.text
    assert words in answer.json()["message"]


def test_a_name_too_long_for_its_children_is_refused(namespace: Cluster) -> None:
    answer = namespace.try_create(NEEDED, name="n" * 41)
    assert answer.status_code == 422
    assert "metadata.name: at most 40 characters" in answer.json()["message"]


def test_a_short_spec_is_filled_up_with_the_defaults_of_the_models(cluster: Cluster) -> None:
    stored = cluster.create()["spec"]
    assert Spec.model_validate(stored) == Spec.model_validate(NEEDED)
    assert stored["workers"]["autoscaling"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 300


def test_one_field_of_a_behavior_may_be_given_without_the_others(cluster: Cluster) -> None:
    down = {"stabilizationWindowSeconds": 60}
    stored = cluster.create(workers={"autoscaling": {"behavior": {"scaleDown": down}}})["spec"]
    kept = stored["workers"]["autoscaling"]["behavior"]["scaleDown"]
    assert kept["stabilizationWindowSeconds"] == 60
    assert (
        kept["policies"]
        == Spec.model_validate(NEEDED).model_dump(by_alias=True, mode="json")["workers"]["autoscaling"]["behavior"][
            "scaleDown"
        ]["policies"]
    )


def test_a_full_spec_is_accepted_as_it_is(cluster: Cluster) -> None:
    full = Spec.model_validate(
        NEEDED
        | {
            "extraPools": [{"name": "slow", "queues": ["reports"], "autoscaling": {"minReplicas": 0}}],
            "api": {"ingress": {"enabled": True, "host": "tasks.example.com"}, "resources": {"limits": {"cpu": 2}}},
            "workers": {"resources": {"requests": {"memory": "256Mi"}}, "env": [{"name": "A", "value": "b"}]},
        }
    ).model_dump(mode="json", by_alias=True, exclude_none=True)
    assert cluster.try_create(full).json()["spec"] == full


def test_kubectl_knows_the_short_name_the_category_and_the_columns(api_server: ApiServer, cluster: Cluster) -> None:
    cluster.create()
    status = {
        "phase": "Running",
        "api": {"readyReplicas": 2},
        "workers": {"readyReplicas": 3, "desired": 4, "busy": 1, "replicas": 3, "selector": "a=b"},
        "scaling": {"reason": "2 -> 4: waiting 12", "inputs": {"waiting": 12, "oldestSeconds": 41}},
        "conditions": [
            {"type": "Ready", "status": "True", "reason": "Serving", "lastTransitionTime": "2026-11-24T12:00:00Z"}
        ],
    }
    cluster.patch(CLUSTER, "shop", {"status": status}, sub="status")
    for name in ("tfc", "taskflow"):
        shown = api_server.kubectl("get", name, "-n", cluster.namespace, "-o", "wide").stdout.splitlines()
        headings = "NAME READY PHASE API WORKERS DESIRED BUSY WAITING OLDEST AGE MIN MAX REASON"
        assert shown[0].split() == headings.split()
        assert shown[1].split()[:9] == ["shop", "True", "Running", "2", "3", "4", "1", "12", "41"]
        assert shown[1].endswith("2 -> 4: waiting 12")


def test_kubectl_scale_and_an_hpa_reach_the_default_pool(api_server: ApiServer, cluster: Cluster) -> None:
    cluster.create(workers={"autoscaling": {"mode": "External"}})
    cluster.patch(CLUSTER, "shop", {"status": {"workers": {"replicas": 2, "selector": "a=b"}}}, sub="status")
    scaled = api_server.kubectl("scale", "tfc/shop", "-n", cluster.namespace, "--replicas=5")
    assert scaled.returncode == 0, scaled.stderr
    scale = cluster.get(CLUSTER, "shop/scale")
    assert scale is not None
    assert scale["spec"]["replicas"] == 5
    assert scale["status"] == {"replicas": 2, "selector": "a=b"}


def test_a_status_write_changes_no_spec_and_a_spec_write_no_status(cluster: Cluster) -> None:
    made = cluster.create()
    change = {"spec": {"suspend": True}, "status": {"phase": "Running"}}
    after = cluster.patch(CLUSTER, "shop", change, sub="status")
    assert after["spec"] == made["spec"]
    after = cluster.patch(CLUSTER, "shop", {"spec": {"suspend": True}, "status": {"phase": "Other"}})
    assert after["status"]["phase"] == "Running"
    assert json.dumps(after["spec"]) != json.dumps(made["spec"])
