"""One platform made by a TaskFlowCluster, and a user who talks to its API through kubectl's port-forward."""

import os
import re
import secrets
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx2

from e2e.kube import Body, Kube
from waiting import eventually

NAME = "e2e"
REPOSITORY, _, TAG = os.environ.get("TASKFLOW_PROBE_IMAGE", "taskflow/probe:dev").rpartition(":")
FORWARDED = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+)")
WORKERS = "taskflow.io/cluster=e2e,app.kubernetes.io/component=worker"


def custom_resource(**workers: Any) -> Body:
    """Return a small platform whose workers come from zero and go back to zero within seconds."""
    quick = {"stabilizationWindowSeconds": 5, "policies": [{"type": "Percent", "value": 100, "periodSeconds": 5}]}
    autoscaling = {
        "minReplicas": 0,
        "maxReplicas": 4,
        "pollingIntervalSeconds": 1,
        "scaleToZeroAfterSeconds": 5,
        "behavior": {"scaleDown": quick},
    }
    pool = {
        "queues": ["default"],
        "concurrency": 10,
        "terminationGracePeriodSeconds": 75,
        "maxTaskSeconds": 45,
        "autoscaling": autoscaling,
    }
    return {
        "apiVersion": "taskflow.io/v1alpha1",
        "kind": "TaskFlowCluster",
        "metadata": {"name": NAME},
        "spec": {
            "image": {"repository": REPOSITORY, "tag": TAG},
            "database": {"urlSecretRef": {"name": "database"}},
            "redis": {"urlSecretRef": {"name": "redis"}},
            "auth": {"secretRef": {"name": "keys"}},
            "api": {"replicas": 1},
            "workers": pool | workers,
        },
    }


@dataclass
class User:
    """An account of the platform. Its connection is made anew when the pod behind it is gone."""

    kube: Kube
    name: str = NAME
    email: str = field(default_factory=lambda: f"e2e-{secrets.token_hex(4)}@example.com")
    password: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    token: str = ""
    _client: httpx2.Client | None = None
    _forward: "subprocess.Popen[str] | None" = None

    def register(self) -> None:
        """Make the account and log in."""
        account = {"email": self.email, "password": self.password}
        assert self.call("POST", "/auth/register", json=account).status_code in {201, 409}
        self.login()

    def login(self) -> None:
        """Get a new access token."""
        answer = self.call("POST", "/auth/login", json={"email": self.email, "password": self.password})
        assert answer.status_code == 200, answer.text
        self.token = answer.json()["access_token"]

    def submit(self, count: int, *, seconds: float) -> list[str]:
        """Send tasks that nap, in one request, and return their ids."""
        item = {"type": "NAP", "payload": {"seconds": seconds, "steps": 1}}
        headers = {"Idempotency-Key": secrets.token_hex(16)}
        answer = self.call("POST", "/tasks:batch", json={"items": [item] * count}, headers=headers)
        assert answer.status_code == 200, answer.text
        return [result["task"]["id"] for result in answer.json()["items"]]

    def tasks(self) -> list[Body]:
        """Return every task of the account."""
        found: list[Body] = []
        cursor = None
        while True:
            query = {"limit": 100} | ({"cursor": cursor} if cursor else {})
            page = self.call("GET", "/tasks", params=query).json()
            found += page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return found

    def count(self, status: str) -> int:
        """Return how many tasks of the account have that status."""
        return sum(task["status"] == status for task in self.tasks())

    def call(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """Send a request, again over a new connection while the pod behind it changes."""

        def tried() -> httpx2.Response | None:
            headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
            headers |= options.get("headers", {})
            with suppress(httpx2.HTTPError, ValueError):
                answer = self._open().request(method, "/api/v1" + path, **{**options, "headers": headers})
                if answer.status_code != 503:
                    return answer
            self.close()
            return None

        return eventually(tried, timeout=120)

    def close(self) -> None:
        """Leave the connection."""
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._forward is not None:
            self._forward.terminate()
            self._forward.wait(timeout=10)
            if self._forward.stdout:
                self._forward.stdout.close()
            self._forward = None

    def _open(self) -> httpx2.Client:
        if self._client is None:
            command = ["kubectl", "-n", self.kube.namespace, "port-forward", f"service/{self.name}-api", ":80"]
            self._forward = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
            )
            assert self._forward.stdout is not None
            found = FORWARDED.search(self._forward.stdout.readline())
            if found is None:
                raise ValueError("nothing is forwarded")
            self._client = httpx2.Client(base_url=f"http://127.0.0.1:{found[1]}", timeout=30)
        return self._client
