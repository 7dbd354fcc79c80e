"""The CustomResourceDefinition, generated from the models of spec and status: `python -m taskflow_operator.crd`."""

import json
import sys
from typing import Any

import yaml
from pydantic import BaseModel

from taskflow_operator.spec import Spec
from taskflow_operator.status import Status

GROUP = "taskflow.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "TaskFlowCluster"
PLURAL = "taskflowclusters"
KEPT = frozenset(
    {
        "type",
        "description",
        "enum",
        "pattern",
        "minimum",
        "maximum",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "minProperties",
        "maxProperties",
        "required",
        "format",
    }
)
MAX_NAME = 40  # leaves room for what children's names append
COLUMNS = (
    ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status', 0),
    ("Phase", "string", ".status.phase", 0),
    ("API", "integer", ".status.api.readyReplicas", 0),
    ("Workers", "integer", ".status.workers.readyReplicas", 0),
    ("Desired", "integer", ".status.workers.desired", 0),
    ("Busy", "integer", ".status.workers.busy", 0),
    ("Waiting", "integer", ".status.scaling.inputs.waiting", 0),
    ("Oldest", "integer", ".status.scaling.inputs.oldestSeconds", 0),
    ("Age", "date", ".metadata.creationTimestamp", 0),
    ("Min", "integer", ".spec.workers.autoscaling.minReplicas", 1),
    ("Max", "integer", ".spec.workers.autoscaling.maxReplicas", 1),
    ("Reason", "string", ".status.scaling.reason", 1),
)


def definition() -> dict[str, Any]:
    """Return the CustomResourceDefinition."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["tfc"],
                "categories": ["taskflow"],
            },
            "versions": [_version()],
        },
    }


def _version() -> dict[str, Any]:
    return {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.workers.replicas",
                "statusReplicasPath": ".status.workers.replicas",
                "labelSelectorPath": ".status.workers.selector",
            },
        },
        "additionalPrinterColumns": [
            {"name": name, "type": kind, "jsonPath": path, "priority": priority}
            for name, kind, path, priority in COLUMNS
        ],
        "schema": {
            "openAPIV3Schema": {
                "type": "object",
                "description": "One TaskFlow platform: API, scheduler, pools of workers.",
                "required": ["spec"],
                "properties": {
                    "apiVersion": {"type": "string"},
                    "kind": {"type": "string"},
                    "metadata": {"type": "object"},
                    "spec": structural(Spec),
                    "status": structural(Status),
                },
                "x-kubernetes-validations": [
                    {
                        "rule": f"size(self.metadata.name) <= {MAX_NAME}",
                        "message": f"metadata.name: at most {MAX_NAME} characters, children's names append to it",
                    }
                ],
            }
        },
    }


def structural(model: type[BaseModel]) -> dict[str, Any]:
    """Return a model's schema as Kubernetes wants it: no references, no titles, no null, every type spelt out."""
    schema = model.model_json_schema(by_alias=True)
    return _node(schema, schema.get("$defs", {}))


def _node(node: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
    node = _resolved(node, defs)
    if "x-kubernetes-int-or-string" in node:
        return {key: value for key, value in node.items() if key != "title"}
    kept = {key: value for key, value in node.items() if key in KEPT or key.startswith("x-kubernetes-")}
    if "const" in node:
        kept["enum"] = [node["const"]]
    if node.get("default") is not None:
        kept["default"] = _without_null(node["default"])
    if "properties" in node:
        kept["properties"] = {name: _node(child, defs) for name, child in node["properties"].items()}
        _spread_default(kept)
    if isinstance(node.get("additionalProperties"), dict):
        kept["additionalProperties"] = _node(node["additionalProperties"], defs)
    if "items" in node:
        kept["items"] = _node(node["items"], defs)
    return kept


def _spread_default(node: dict[str, Any]) -> None:
    """Let each field of an object have what the object's default says for it: one may be given without the others."""
    for name, value in node.get("default", {}).items():
        node["properties"][name].setdefault("default", value)
    required = [name for name in node.get("required", []) if name not in node.get("default", {})]
    node.pop("required", None)
    if required:
        node["required"] = required


def _resolved(node: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
    """Return the node with its reference, or the one branch beside null, in its place; what stands beside it wins."""
    beside = dict(node)
    if "$ref" in node:
        target = beside.pop("$ref").rpartition("/")[2]
        return _resolved(defs[target], defs) | beside
    branches = [branch for branch in node.get("anyOf", []) if branch != {"type": "null"}]
    if len(branches) == 1:
        del beside["anyOf"]
        return _resolved(branches[0], defs) | beside
    return beside


def _without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_null(item) for key, item in value.items() if item is not None}
    return [_without_null(item) for item in value] if isinstance(value, list) else value


def as_yaml() -> str:
    """Return the definition as YAML that says where it comes from."""
    # JSON is YAML, and round trips without the aliases that a YAML dumper makes of repeated parts.
    plain = json.loads(json.dumps(definition()))
    text = yaml.safe_dump(plain, sort_keys=False, width=120)
    return f"# Generated from operator/taskflow_operator/spec.py: make crd\n{text}"


if __name__ == "__main__":
    sys.stdout.write(as_yaml())
