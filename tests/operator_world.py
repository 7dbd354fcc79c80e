"""A cluster's objects in memory, for tests that need no API server: applies plans as the API server would."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from taskflow_operator.kinds import DEPLOYMENT, JOB, Body
from taskflow_operator.manifests import COMPONENTS
from taskflow_operator.observed import Key, Observed, fingerprint, key_of
from taskflow_operator.plan import Apply, Delete, Plan, plan
from taskflow_operator.spec import Spec

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
NEEDED: dict[str, Any] = {
    "image": {"repository": "example.com/taskflow", "tag": "1.0"},
    "database": {"urlSecretRef": {"name": "postgres"}},
    "redis": {"urlSecretRef": {"name": "redis"}},
    "auth": {"secretRef": {"name": "jwt"}},
}


def spec_of(**changes: Any) -> Spec:
    """Return a spec that holds what must be said, and the changes (camelCase names as in YAML)."""
    return Spec.model_validate(NEEDED | changes)


def stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class World:
    """What exists in the namespace of one cluster."""

    name: str = "shop"
    uid: str = field(default_factory=lambda: str(uuid4()))
    annotations: dict[str, str] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=lambda: dict.fromkeys(COMPONENTS, "h1"))
    missing: tuple[str, ...] = ()
    children: dict[Key, Body] = field(default_factory=dict)
    pods: list[Body] = field(default_factory=list)
    settled: dict[Key, str] = field(default_factory=dict)
    taken: frozenset[Key] = frozenset()
    now: datetime = NOW
    version: int = 1

    def look(self) -> Observed:
        metadata = {
            "name": self.name,
            "namespace": "team",
            "uid": self.uid,
            "generation": 1,
            "annotations": self.annotations,
        }
        return Observed(
            metadata, self.children, self.pods, self.hashes, self.missing, self.settled, self.taken, refused={}
        )

    def plan(self, spec: Spec) -> Plan:
        return plan(self.look(), spec, self.now)

    def perform(self, made: Plan) -> None:
        """Do what the plan says, and let the Deployments get what they ask for."""
        for action in made.actions:
            self.version += 1
            if isinstance(action, Apply):
                self.apply(action.manifest)
            elif isinstance(action, Delete):
                del self.children[Key(action.kind.name, action.name)]
            else:
                self.children[Key(DEPLOYMENT.name, action.name)]["spec"]["replicas"] = action.replicas

    def apply(self, manifest: Body) -> Body:
        key = key_of(manifest)
        before = self.children.get(key, {})
        known = before.get("metadata", {})
        metadata = manifest["metadata"] | {
            "uid": known.get("uid", str(uuid4())),
            "resourceVersion": str(self.version),
            "generation": known.get("generation", 0) + 1,
        }
        kept = {"replicas": before.get("spec", {}).get("replicas", 1)} if key.kind == DEPLOYMENT.name else {}
        spec = {"spec": manifest["spec"] | kept} if "spec" in manifest else {}
        body = manifest | {"metadata": metadata, "status": before.get("status", {})} | spec
        self.children[key] = body
        self.settled[key] = fingerprint(body)
        return body

    def end_jobs(self, outcome: str = "Complete", *, at: datetime | None = None) -> None:
        """Let every Job that has not ended end."""
        for key, body in self.children.items():
            if key.kind == JOB.name and not body["status"]:
                when = stamp(at or self.now)
                condition = {"type": outcome, "status": "True", "lastTransitionTime": when}
                body["status"] = {"conditions": [condition]}

    def get_ready(self) -> None:
        """Let every Deployment have the pods it asks for, of its newest template."""
        for body in self.deployments():
            wanted = body["spec"].get("replicas", 1)
            names = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
            body["status"] = dict.fromkeys(names, wanted) | {"observedGeneration": body["metadata"]["generation"]}

    def deployments(self) -> Iterator[Body]:
        return (body for key, body in self.children.items() if key.kind == DEPLOYMENT.name)

    def settle(self, spec: Spec, *, rounds: int = 6) -> int:
        """Plan and perform, Jobs ending in between, until nothing is left to do; return the rounds that took."""
        for number in range(rounds):
            made = self.plan(spec)
            if not made.actions and number:
                return number
            self.perform(made)
            self.end_jobs()
        raise AssertionError(f"not settled after {rounds} rounds: {self.plan(spec).actions}")

    def names(self) -> set[str]:
        return {str(key) for key in self.children}

    def pod(self, component: str, **status: Any) -> Body:
        """Add a pod of a component."""
        labels = {"app.kubernetes.io/component": component, "taskflow.io/cluster": self.name}
        metadata = {
            "name": f"{self.name}-{component}-{len(self.pods)}",
            "labels": labels,
            "creationTimestamp": stamp(self.now - timedelta(hours=1)),
        }
        body = {"kind": "Pod", "metadata": metadata, "status": status}
        self.pods.append(body)
        return body
