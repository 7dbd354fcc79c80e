"""Names and labels of what belongs to a cluster."""

import hashlib
import json
from typing import Any

from taskflow_operator.spec import DEFAULT_POOL

MANAGER = "taskflow-operator"
CLUSTER_LABEL = "taskflow.io/cluster"
POOL_LABEL = "taskflow.io/pool"
COMPONENT_LABEL = "app.kubernetes.io/component"
MANIFEST_ANNOTATION = "taskflow.io/manifest"
SECRETS_ANNOTATION = "taskflow.io/secrets"
PAUSED_ANNOTATION = "taskflow.io/paused"
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
MAX_NAME = 63
CUT = 47


def digest(value: Any) -> str:
    """Return 16 hexadecimal digits that stand for a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def child_name(cluster: str, *parts: str) -> str:
    """Return the name of a child; one that is too long is cut and ends with a hash of the whole."""
    name = "-".join([cluster, *parts])
    return name if len(name) <= MAX_NAME else f"{name[:CUT].rstrip('-.')}-{digest(name)[:8]}"


def worker_name(cluster: str, pool: str) -> str:
    """Return the name of a pool's Deployment."""
    return child_name(cluster, "worker", *([] if pool == DEFAULT_POOL else [pool]))


def selector(cluster: str, component: str, pool: str | None = None) -> dict[str, str]:
    """Return the labels that pick the pods of a component, or of one pool of workers."""
    labels = {CLUSTER_LABEL: cluster, COMPONENT_LABEL: component}
    return labels if pool is None else labels | {POOL_LABEL: pool}


def labels(cluster: str, component: str, pool: str | None = None) -> dict[str, str]:
    """Return all labels of a child."""
    return {
        "app.kubernetes.io/name": "taskflow",
        "app.kubernetes.io/instance": cluster,
        "app.kubernetes.io/managed-by": MANAGER,
        **selector(cluster, component, pool),
    }


def selector_text(chosen: dict[str, str]) -> str:
    """Return a selector as the API server's query takes it."""
    return ",".join(f"{key}={value}" for key, value in sorted(chosen.items()))
