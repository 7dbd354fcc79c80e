"""What the operator may do, no more than its code does: `python -m taskflow_operator.rbac` prints the roles.

Cluster-wide, the rules of PLATFORM are a ClusterRole; for chosen namespaces, a Role in each. Those of OWN are always a
Role in the operator's own namespace. A test takes each verb away and sees the operator miss it.
"""

import json
import sys
from typing import Any, NamedTuple

import yaml

from taskflow_operator.kinds import (
    CLUSTER,
    DEPLOYMENT,
    EVENT,
    LEASE,
    MADE,
    OPTIONAL,
    POD,
    SECRET,
    Kind,
)
from taskflow_operator.names import MANAGER


class Grant(NamedTuple):
    """Verbs on a kind, or on a subresource of it."""

    kind: Kind
    verbs: tuple[str, ...]
    sub: str = ""

    @property
    def resource(self) -> str:
        """Return the resource as RBAC names it."""
        return f"{self.kind.plural}/{self.sub}" if self.sub else self.kind.plural


# Server-side apply is a patch, and a create where there is nothing yet.
PLATFORM = (
    Grant(CLUSTER, ("get", "list", "watch")),
    Grant(CLUSTER, ("patch",), "status"),
    *(Grant(kind, ("get", "list", "watch", "create", "patch", "delete")) for kind in MADE),
    *(Grant(kind, ("get", "list", "create", "patch", "delete")) for kind in OPTIONAL),
    Grant(DEPLOYMENT, ("patch",), "scale"),
    Grant(POD, ("list", "watch", "patch")),
    Grant(SECRET, ("get",)),
    Grant(EVENT, ("create",)),
)
OWN = (Grant(LEASE, ("get", "create", "patch")),)


def rules(grants: tuple[Grant, ...]) -> list[dict[str, Any]]:
    """Return grants as RBAC's rules."""
    return [
        {"apiGroups": [grant.kind.group], "resources": [grant.resource], "verbs": list(grant.verbs)} for grant in grants
    ]


def role(kind: str, name: str, grants: tuple[Grant, ...]) -> dict[str, Any]:
    """Return a Role or a ClusterRole."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": name},
        "rules": rules(grants),
    }


def as_yaml() -> str:
    """Return the two roles of a cluster-wide operator as YAML."""
    roles = [role("ClusterRole", MANAGER, PLATFORM), role("Role", f"{MANAGER}-lease", OWN)]
    plain = json.loads(json.dumps(roles))
    text = yaml.safe_dump_all(plain, sort_keys=False, width=120)
    return f"# Generated from operator/taskflow_operator/rbac.py: make crd\n{text}"


if __name__ == "__main__":
    sys.stdout.write(as_yaml())
