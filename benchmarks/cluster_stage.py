"""Many TaskFlowClusters with pods on a real API server; the stage plays controllers and kubelets."""

import asyncio
import base64
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from redis import Redis

from cluster.api_server import ApiServer, running_api_server
from cluster.conftest import FILES, OPERATOR, bound_roles
from servers import server_process
from taskflow_cli.embedded import valkey
from taskflow_cli.embedded.ports import free_port
from taskflow_core.beacons import BEACON_KEY, Beacon
from taskflow_operator.cluster import ApiFailure, KubernetesApi
from taskflow_operator.kinds import CLUSTER, DEPLOYMENT, JOB, POD, SECRET, Body, Kind

NAMESPACE = "bench"
SLOTS = 4
AT_ONCE = 16
DEADLINE_S = 1800.0
CONTAINER_ID = "containerd://" + "5f2d0c9b" * 8
IMAGE_ID = "example.com/taskflow/platform@sha256:" + "9c1e7a44" * 8


@dataclass
class Stage:
    """The servers and what was put on them."""

    server: ApiServer
    api: KubernetesApi
    redis_url: str
    folder: Path
    clusters: int
    pods: int

    @property
    def names(self) -> list[str]:
        """Return the names of all clusters."""
        return [f"shop-{number:03}" for number in range(self.clusters)]

    def redis(self, number: int) -> Redis:
        """Return a client of the database of one cluster."""
        return Redis.from_url(f"{self.redis_url}/{number}")

    async def announce(self) -> None:
        """Make the namespace, the Secrets and the TaskFlowClusters."""
        await self.api.request("POST", "/api/v1/namespaces", body={"metadata": {"name": NAMESPACE}})
        shared = {"postgres": {"url": "postgresql://u:p@127.0.0.1:5432/taskflow"}, "jwt": {"jwt-secret": "j" * 48}}
        redis = {f"redis-{number}": {"url": f"{self.redis_url}/{number}"} for number in range(self.clusters)}
        await together(self.api.create(SECRET, _secret(name, data)) for name, data in (shared | redis).items())
        await together(
            self.api.create(CLUSTER, _cluster(name, number, self.pods)) for number, name in enumerate(self.names)
        )

    async def come_up(self, operator: "Operator") -> None:
        """Play the controllers until every pool has the pods that it asks for; fail after DEADLINE_S."""
        deadline = time.monotonic() + DEADLINE_S
        populated: set[str] = set()
        while len(populated) < self.clusters:
            if time.monotonic() > deadline:
                raise TimeoutError(f"only {len(populated)} of {self.clusters} clusters have their pods")
            operator.keep_running()
            jobs = [job async for job in self.api.list(JOB, NAMESPACE)]
            await together(self._end(job) for job in jobs if not job.get("status", {}).get("conditions"))
            deployments = [body async for body in self.api.list(DEPLOYMENT, NAMESPACE)]
            await together(self._follow(body) for body in deployments if _behind(body))
            for body in deployments:
                name, labels = body["metadata"]["labels"]["taskflow.io/cluster"], body["metadata"]["labels"]
                full = labels["app.kubernetes.io/component"] == "worker" and body["spec"]["replicas"] == self.pods
                if full and name not in populated:
                    await together(self._pod(f"{name}-worker-{number}", body) for number in range(self.pods))
                    self._light(name)
                    populated.add(name)
                    if len(populated) % 50 == 0:
                        print(f"{len(populated)} clusters have their pods", flush=True)
            await asyncio.sleep(0.5)

    async def _end(self, job: Body) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        conditions = [
            {"type": kind, "status": "True", "lastTransitionTime": now} for kind in ("SuccessCriteriaMet", "Complete")
        ]
        await self._status(
            JOB, job, {"startTime": now, "completionTime": now, "succeeded": 1, "conditions": conditions}
        )

    async def _follow(self, body: Body) -> None:
        counts = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
        status = dict.fromkeys(counts, body["spec"]["replicas"])
        await self._status(DEPLOYMENT, body, status | {"observedGeneration": body["metadata"]["generation"]})

    async def _pod(self, name: str, deployment: Body) -> None:
        template = deployment["spec"]["template"]
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {**template["metadata"], "name": name, "namespace": NAMESPACE},
            "spec": template["spec"],
        }
        with suppress(ApiFailure):  # a create is not tried again by itself; the status says whether it was made
            await self.api.create(POD, body)
        await self._status(POD, body, _pod_status())

    async def _status(self, kind: Kind, body: Body, status: Body) -> None:
        await self.api.merge(kind, NAMESPACE, body["metadata"]["name"], {"status": status}, sub="status")

    def _light(self, name: str) -> None:
        """Let the pods of a cluster say that they are idle, for as long as the benchmark runs."""
        with self.redis(self.names.index(name)) as redis, redis.pipeline(transaction=False) as pipe:
            for number in range(self.pods):
                pod = f"{name}-worker-{number}"
                beacon = Beacon(f"{pod}-1-boot", ["default"], [], SLOTS, 0, time.time(), "running", None)
                pipe.set(BEACON_KEY + pod, beacon.to_json())
            pipe.execute()

    @contextmanager
    def operator(self) -> Iterator["Operator"]:
        """Run an operator's process with the rights of its roles."""
        operator = Operator(str(self.server.kubeconfig(OPERATOR)), free_port(), self.folder / "operator.log")
        operator.start()
        try:
            yield operator
        finally:
            operator.process.send_signal(signal.SIGTERM)
            operator.process.wait(timeout=60)


@dataclass
class Operator:
    """An operator's process."""

    kubeconfig: str
    port: int
    log: Path

    def start(self) -> None:
        """Start it, or start it again."""
        env = {
            "PATH": os.environ["PATH"],
            "KUBECONFIG": self.kubeconfig,
            "TASKFLOW_PROBE_PORT": str(self.port),
            "TASKFLOW_LOG_LEVEL": "warning",
        }
        command = [sys.executable, "-m", "taskflow_operator"]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(command, env=env, stdout=output, stderr=subprocess.STDOUT)

    def keep_running(self) -> None:
        """Start it again when it has left, as a kubelet does: it leaves when it cannot renew its lease."""
        if self.process.poll() is not None:
            print(f"the operator left: {self.log.read_text().splitlines()[-1]}", flush=True)
            self.start()

    def metrics(self, name: str) -> dict[str, float]:
        """Return the samples of a metric by their labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=30) as answer:
            text = answer.read().decode()
        return {labels: float(value) for labels, value in re.findall(rf"^{name}(?:{{(.*)}})? (\S+)$", text, re.M)}

    def leads_all(self, clusters: int) -> bool:
        """Whether it looks after all of them and has looked at each pool."""
        try:
            known = self.metrics("taskflow_operator_clusters").get("", 0)
            return known == clusters and len(self.metrics("taskflow_operator_pool_waiting")) == clusters
        except OSError:
            return False

    def memory_mib(self, what: str) -> float:
        """Return VmRSS or VmHWM in mebibytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition(f"{what}:")[2].split()[0]) / 1024

    def cpu_s(self) -> float:
        """Return the processor seconds that it used so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def stage(clusters: int, pods: int) -> Iterator[Stage]:
    """Run an API server with our definition and roles, and a Valkey with a database for each cluster."""
    folder = Path(tempfile.mkdtemp(prefix="taskflow-bench-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        users = {"admin": "system:masters", OPERATOR: "operators"}
        server = stack.enter_context(running_api_server(folder, users))
        for given in ((FILES / "crd.yaml").read_text(), bound_roles()):
            made = server.kubectl("apply", "-f", "-", text=given)
            if made.returncode:
                raise RuntimeError(made.stderr)
        password, port = secrets.token_urlsafe(16), free_port()
        valkey.initialise(folder / "valkey", port, password)
        with (folder / "valkey" / valkey.CONFIG).open("a") as config:
            config.write(f"databases {clusters}\nappendonly no\n")
        address = valkey.url(password, port)
        launch = valkey.launch(valkey.find(), folder / "valkey")
        stack.enter_context(server_process(launch, lambda: valkey.is_ready(address), signal.SIGTERM))
        os.environ["KUBECONFIG"] = str(server.kubeconfig())
        loop = asyncio.get_event_loop()
        api = loop.run_until_complete(KubernetesApi.connect())
        stack.callback(lambda: loop.run_until_complete(api.close()))
        yield Stage(server, api, address.rpartition("/")[0], folder, clusters, pods)


async def together(work: Iterable[Awaitable[Any]]) -> None:
    """Do it all, a few at a time."""
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(item: Awaitable[Any]) -> None:
        async with limit:
            await item

    await asyncio.gather(*(one(item) for item in work))


def _secret(name: str, data: dict[str, str]) -> Body:
    encoded = {key: base64.b64encode(text.encode()).decode() for key, text in data.items()}
    return {"metadata": {"name": name, "namespace": NAMESPACE}, "data": encoded}


def _cluster(name: str, number: int, pods: int) -> Body:
    autoscaling = {"minReplicas": pods, "maxReplicas": pods * 5}
    return {
        "apiVersion": CLUSTER.api_version,
        "kind": CLUSTER.name,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "image": {"repository": "example.com/taskflow/platform", "tag": "1.0"},
            "database": {"urlSecretRef": {"name": "postgres"}},
            "redis": {"urlSecretRef": {"name": f"redis-{number}"}},
            "auth": {"secretRef": {"name": "jwt"}},
            "workers": {"queues": ["default"], "concurrency": SLOTS, "autoscaling": autoscaling},
        },
    }


def _behind(body: Body) -> bool:
    status, spec = body.get("status", {}), body["spec"]
    return bool(
        status.get("observedGeneration") != body["metadata"]["generation"]
        or status.get("readyReplicas", 0) != spec["replicas"]
    )


def _pod_status() -> Body:
    """Return what a kubelet writes about a pod that runs."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    kinds = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
    container = {
        "name": "worker",
        "image": "example.com/taskflow/platform:1.0",
        "imageID": IMAGE_ID,
        "containerID": CONTAINER_ID,
        "ready": True,
        "started": True,
        "restartCount": 0,
        "state": {"running": {"startedAt": now}},
    }
    return {
        "phase": "Running",
        "conditions": [{"type": kind, "status": "True", "lastTransitionTime": now} for kind in kinds],
        "hostIP": "10.1.0.1",
        "podIP": "10.244.0.7",
        "podIPs": [{"ip": "10.244.0.7"}],
        "startTime": now,
        "containerStatuses": [container],
    }
