import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from operator_world import NEEDED, World, spec_of
from taskflow_core.settings import ApiSettings, SchedulerSettings, Settings, WorkerSettings
from taskflow_operator.crd import as_yaml, definition
from taskflow_operator.kinds import Body
from taskflow_operator.manifests import Maker
from taskflow_operator.names import child_name
from taskflow_operator.rbac import as_yaml as roles_as_yaml
from taskflow_operator.spec import OWN_VARIABLES, Spec

ROOT = Path(__file__).parents[2]
CRD = ROOT / "charts" / "taskflow" / "files" / "crd.yaml"


def made(**changes: Any) -> dict[str, Body]:
    """Return all objects of a spec by kind and name."""
    world = World()
    world.settle(spec_of(**changes))
    return {str(key): body for key, body in world.children.items()}


def templates(**changes: Any) -> dict[str, Body]:
    """Return the pod templates by component."""
    found = [body["spec"]["template"] for body in made(**changes).values() if "template" in body.get("spec", {})]
    return {template["metadata"]["labels"]["app.kubernetes.io/component"]: template for template in found}


def variables(template: Body) -> dict[str, Any]:
    return {item["name"]: item.get("value", item.get("valueFrom")) for item in template["spec"]["containers"][0]["env"]}


def test_the_checked_in_definition_is_that_of_the_code() -> None:
    assert CRD.read_text() == as_yaml(), "run make crd"


def test_the_checked_in_roles_are_those_of_the_code() -> None:
    assert (CRD.parent / "rbac.yaml").read_text() == roles_as_yaml(), "run make crd"


def nodes(schema: Body) -> list[Body]:
    children = [*schema.get("properties", {}).values()]
    children += [schema[name] for name in ("items", "additionalProperties") if isinstance(schema.get(name), dict)]
    return [schema, *(node for child in children for node in nodes(child))]


def test_every_list_map_and_string_of_the_spec_has_an_upper_bound() -> None:
    root = definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    unbounded = [
        node
        for node in nodes(root["properties"]["spec"])
        if (node.get("type") == "array" and "maxItems" not in node)
        or (node.get("type") == "string" and not {"maxLength", "enum"} & node.keys())
        or ("additionalProperties" in node and "maxProperties" not in node)
        or ("type" not in node and "x-kubernetes-int-or-string" not in node)
    ]
    assert unbounded == []


@pytest.mark.parametrize("component", ["api", "scheduler", "worker", "migrate"])
def test_pods_meet_the_restricted_pod_security_standard(component: str) -> None:
    pod = templates()[component]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not pod["automountServiceAccountToken"]
    assert not pod["enableServiceLinks"]


@pytest.mark.parametrize("component", ["api", "scheduler", "worker", "migrate"])
def test_a_process_is_never_process_1_which_would_ignore_sigterm_while_it_starts(component: str) -> None:
    assert templates()[component]["spec"]["shareProcessNamespace"] is True


def test_each_process_gets_the_secrets_it_needs_and_no_other() -> None:
    held = {
        name: {key for key, value in variables(template).items() if isinstance(value, dict)}
        for name, template in templates().items()
    }
    both = {"TASKFLOW_DATABASE_URL", "TASKFLOW_REDIS_URL"}
    webhooks = {"TASKFLOW_WEBHOOK_KEY", "TASKFLOW_WEBHOOK_PREVIOUS_KEY"}
    assert held == {
        "api": both | {"TASKFLOW_JWT_SECRET", "TASKFLOW_JWT_PREVIOUS_SECRET"} | webhooks,
        "scheduler": both | webhooks,
        "worker": both,
        "migrate": both,
    }


def test_every_variable_that_is_set_is_a_setting_of_its_process() -> None:
    kinds: dict[str, type[Settings]] = {"api": ApiSettings, "scheduler": SchedulerSettings, "worker": WorkerSettings}
    for component, template in templates().items():
        if component in kinds:
            known = {f"TASKFLOW_{name.upper()}" for name in kinds[component].model_fields}
            assert variables(template).keys() <= known


def test_what_the_operator_sets_cannot_be_set_twice() -> None:
    own = {name for template in templates().values() for name in variables(template)}
    assert own - {"TASKFLOW_API_HOST"} == set(OWN_VARIABLES)


def test_a_worker_gives_back_its_tasks_before_the_kubelet_kills_it() -> None:
    workers = {"terminationGracePeriodSeconds": 700, "maxTaskSeconds": 600, "concurrency": 7, "queues": ["a", "b"]}
    template = templates(workers=workers)["worker"]
    assert template["spec"]["terminationGracePeriodSeconds"] == 700
    held = variables(template)
    assert 600 < int(held["TASKFLOW_SHUTDOWN_GRACE_S"]) < 700
    assert held["TASKFLOW_SLOTS"] == "7"
    assert held["TASKFLOW_QUEUES"] == "a,b"


def test_a_variable_of_the_user_reaches_the_container_and_labels_of_ours_stay_ours() -> None:
    template = templates(
        workers={
            "env": [{"name": "TASKFLOW_LEASE_S", "value": "60"}],
            "podTemplate": {"labels": {"taskflow.io/cluster": "other", "team": "a"}},
        }
    )["worker"]
    assert variables(template)["TASKFLOW_LEASE_S"] == "60"
    assert template["metadata"]["labels"]["taskflow.io/cluster"] == "shop"
    assert template["metadata"]["labels"]["team"] == "a"


def test_a_rotated_secret_changes_the_pods_that_use_it() -> None:
    spec = Spec.model_validate(NEEDED)
    metadata = {"name": "shop", "namespace": "team", "uid": "1"}
    first, second = (
        Maker(metadata, spec, {"api": api, "scheduler": "s", "worker": "w", "migrate": "m"}).workloads()
        for api in ("old", "new")
    )
    changed = [one["metadata"]["name"] for one, other in zip(first, second, strict=True) if one != other]
    assert changed == ["shop-api"]


def test_selectors_of_pools_pick_their_own_pods_alone() -> None:
    found = [body for key, body in made(extraPools=[{"name": "slow"}, {"name": "mail"}]).items() if "worker" in key]
    deployments = [body for body in found if body["kind"] == "Deployment"]
    assert len(deployments) == 3
    for one, other in pairwise(deployments):
        wanted = one["spec"]["selector"]["matchLabels"]
        assert wanted.items() <= one["spec"]["template"]["metadata"]["labels"].items()
        assert not wanted.items() <= other["spec"]["template"]["metadata"]["labels"].items()


def test_what_is_on_request_is_there_on_request_alone() -> None:
    asked = made(
        api={"ingress": {"enabled": True, "host": "tasks.example.com"}, "pdb": {"enabled": True}},
        networkPolicy={"enabled": True},
        monitoring={"podMonitor": {"enabled": True}},
    )
    kinds = {"Ingress", "PodDisruptionBudget", "NetworkPolicy", "PodMonitor"}
    assert {name.split()[0] for name in asked} >= kinds
    assert not {name.split()[0] for name in made()} & kinds


def test_a_long_name_is_cut_and_told_from_others_by_a_hash() -> None:
    names = {child_name("c" * 40, "worker", "p" * 29 + last) for last in "ab"}
    assert len(names) == 2
    assert all(len(name) <= 63 for name in names)


def test_the_definition_is_printed_by_its_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "taskflow_operator.crd"], capture_output=True, text=True, timeout=60, check=True
    )
    assert yaml.safe_load(done.stdout) == yaml.safe_load(CRD.read_text())
