"""A namespace on the test's API server, and what controllers and kubelets would do there, done by hand."""

import base64
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx2

from operator_world import NEEDED
from taskflow_operator.kinds import CLUSTER, DEPLOYMENT, EVENT, JOB, POD, SECRET, Body, Kind

MERGE = {"Content-Type": "application/merge-patch+json"}


@dataclass
class Cluster:
    """A namespace, used as the administrator."""

    client: httpx2.Client
    namespace: str
    redis_url: str = "redis://127.0.0.1:1/0"
    made: list[str] = field(default_factory=list)

    def prepare(self) -> None:
        """Make the namespace and the Secrets."""
        self.post("/api/v1/namespaces", {"metadata": {"name": self.namespace}})
        self.secret("postgres", url="postgresql://u:p@127.0.0.1:5432/taskflow")
        self.secret("redis", url=self.redis_url)
        self.secret("jwt", **{"jwt-secret": secrets.token_urlsafe(48)})

    def clean(self) -> None:
        """Delete the clusters; nothing else is looked at again."""
        self.client.delete(CLUSTER.path(self.namespace))

    def secret(self, name: str, **data: str) -> None:
        """Make a Secret, or replace it."""
        encoded = {key: base64.b64encode(text.encode()).decode() for key, text in data.items()}
        self.client.delete(SECRET.path(self.namespace, name))
        self.post(SECRET.path(self.namespace), {"metadata": {"name": name}, "data": encoded})

    def post(self, path: str, body: Body) -> Body:
        """Make an object; fail with the API server's message when it refuses."""
        answer = self.client.post(path, json=body)
        assert answer.status_code < 300, answer.text
        made: Body = answer.json()
        return made

    def try_create(self, spec: Body, name: str = "shop") -> httpx2.Response:
        """Ask for a TaskFlowCluster and return the answer, whatever it is."""
        manifest = {
            "apiVersion": CLUSTER.api_version,
            "kind": CLUSTER.name,
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": spec,
        }
        return self.client.post(CLUSTER.path(self.namespace), json=manifest)

    def create(self, name: str = "shop", **changes: Any) -> Body:
        """Make a TaskFlowCluster."""
        answer = self.try_create(NEEDED | changes, name)
        assert answer.status_code == 201, answer.text
        made: Body = answer.json()
        return made

    def get(self, kind: Kind, name: str) -> Body | None:
        """Return an object, or None."""
        answer = self.client.get(kind.path(self.namespace, name))
        if answer.status_code == 404:
            return None
        assert answer.status_code == 200, answer.text
        body: Body = answer.json()
        return body

    def all_of(self, kind: Kind) -> list[Body]:
        """Return all objects of a kind."""
        answer = self.client.get(kind.path(self.namespace))
        assert answer.status_code == 200, answer.text
        items: list[Body] = answer.json()["items"]
        return items

    def patch(self, kind: Kind, name: str, change: Body, *, sub: str = "") -> Body:
        """Change fields of an object."""
        answer = self.client.patch(kind.path(self.namespace, name, sub), json=change, headers=MERGE)
        assert answer.status_code == 200, answer.text
        body: Body = answer.json()
        return body

    def delete(self, kind: Kind, name: str) -> None:
        """Delete an object."""
        answer = self.client.delete(kind.path(self.namespace, name), params={"propagationPolicy": "Background"})
        assert answer.status_code in {200, 202, 404}, answer.text

    def condition(self, kind: str, name: str = "shop") -> Body:
        """Return a condition of a TaskFlowCluster, empty while there is none."""
        body = self.get(CLUSTER, name) or {}
        conditions = body.get("status", {}).get("conditions", [])
        return next((item for item in conditions if item["type"] == kind), {})

    def is_so(self, kind: str, status: str, reason: str = "", name: str = "shop") -> bool:
        """Whether a condition has that status, and that reason if one is given."""
        found = self.condition(kind, name)
        return found.get("status") == status and reason in {"", found.get("reason")}

    def events(self) -> list[str]:
        """Return what the events say."""
        return [f"{event['type']} {event['reason']} {event['message']}" for event in self.all_of(EVENT)]

    def end_jobs(self, outcome: str = "Complete") -> bool:
        """Play the Job controller: end what runs; return whether anything did."""
        running = [body for body in self.all_of(JOB) if not body.get("status", {}).get("conditions")]
        for body in running:
            now = _now()
            before = "SuccessCriteriaMet" if outcome == "Complete" else "FailureTarget"
            conditions = [{"type": kind, "status": "True", "lastTransitionTime": now} for kind in (before, outcome)]
            status: Body = {"startTime": now, "conditions": conditions}
            if outcome == "Complete":
                status |= {"completionTime": now, "succeeded": 1}
            self._play(JOB, body["metadata"]["name"], status)
        return bool(running)

    def get_ready(self, *names: str) -> None:
        """Play the Deployment controller: every Deployment has its pods, of its newest template."""
        for body in self.all_of(DEPLOYMENT):
            if names and body["metadata"]["name"] not in names:
                continue
            wanted = body["spec"]["replicas"]
            counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), wanted)
            status = counts | {"observedGeneration": body["metadata"]["generation"]}
            self._play(DEPLOYMENT, body["metadata"]["name"], status)

    def _play(self, kind: Kind, name: str, status: Body) -> None:
        """Write a status as its controller would, unless the object has just been deleted."""
        answer = self.client.patch(kind.path(self.namespace, name, "status"), json={"status": status}, headers=MERGE)
        assert answer.status_code in {200, 404}, answer.text

    def pod(self, name: str, labels: dict[str, str], status: Body) -> None:
        """Play the ReplicaSet controller and the kubelet: a pod with that status."""
        container = {"name": "worker", "image": "example.com/taskflow:1.0"}
        body = {"metadata": {"name": name, "labels": labels}, "spec": {"containers": [container]}}
        self.post(POD.path(self.namespace), body)
        self.patch(POD, name, {"status": status}, sub="status")


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
