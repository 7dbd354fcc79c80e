"""The objects that a cluster consists of: pure, from the spec to what is applied, without replica counts."""

from typing import Any

from taskflow_operator import pods
from taskflow_operator.kinds import (
    CLUSTER,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    INGRESS,
    JOB,
    NETWORK_POLICY,
    POD_MONITOR,
    SERVICE,
    SERVICE_ACCOUNT,
    Body,
    Kind,
)
from taskflow_operator.names import (
    CLUSTER_LABEL,
    MANIFEST_ANNOTATION,
    child_name,
    digest,
    labels,
    selector,
    worker_name,
)
from taskflow_operator.spec import Spec

COMPONENTS = ("api", "scheduler", "worker", "migrate")
MIGRATION_DEADLINE_S = 900


class Maker:
    """Makes the manifests of one cluster; `hashes` has one text for each component's Secrets."""

    def __init__(self, metadata: Body, spec: Spec, hashes: dict[str, str]) -> None:
        self.cluster: str = metadata["name"]
        self.namespace: str = metadata["namespace"]
        self.uid: str = metadata["uid"]
        self.spec = spec
        self.hashes = hashes

    def base(self) -> list[Body]:
        """Return what stands beside the processes: accounts, Service, and what was asked for."""
        made = [self._object(SERVICE_ACCOUNT, f"{self.cluster}-{name}", name) for name in COMPONENTS]
        for account in made:
            account["automountServiceAccountToken"] = False
        made.append(self._service())
        if self.spec.api.pdb.enabled:
            made.append(self._disruption_budget())
        if self.spec.api.ingress.enabled:
            made.append(self._ingress())
        if self.spec.network_policy.enabled:
            made += [self._network_policy(name) for name in COMPONENTS]
        if self.spec.monitoring.pod_monitor.enabled:
            made.append(self._pod_monitor())
        return [_stamped(manifest) for manifest in made]

    def migration(self) -> Body | None:
        """Return the Job that must complete before the processes roll out, or None when that is switched off.

        Its name stands for image and address of the database: another of either is another Job.
        """
        if not self.spec.migrate.enabled:
            return None
        template = pods.migrate_pod(self.cluster, self.spec, self.hashes["migrate"])
        name = child_name(self.cluster, "migrate", digest([self.spec.image.reference, self.hashes["migrate"]])[:10])
        job = self._object(JOB, name, "migrate")
        job["spec"] = {"backoffLimit": 4, "activeDeadlineSeconds": MIGRATION_DEADLINE_S, "template": template}
        return _stamped(job)

    def workloads(self) -> list[Body]:
        """Return the Deployments: API, scheduler, a pool each."""
        spec, cluster = self.spec, self.cluster
        api = self._deployment(f"{cluster}-api", "api", pods.api_pod(cluster, spec, self.hashes["api"]))
        scheduler = self._deployment(
            f"{cluster}-scheduler", "scheduler", pods.scheduler_pod(cluster, spec, self.hashes["scheduler"])
        )
        workers = [
            self._deployment(
                worker_name(cluster, name),
                "worker",
                pods.worker_pod(cluster, spec, name, pool, self.hashes["worker"]),
                pool=name,
            )
            for name, pool in spec.pools().items()
        ]
        return [_stamped(manifest) for manifest in (api, scheduler, *workers)]

    def _object(self, kind: Kind, name: str, component: str, pool: str | None = None) -> Body:
        return {
            "apiVersion": kind.api_version,
            "kind": kind.name,
            "metadata": {
                "name": name,
                "namespace": self.namespace,
                "labels": labels(self.cluster, component, pool),
                "annotations": {},
                "ownerReferences": [
                    {
                        "apiVersion": CLUSTER.api_version,
                        "kind": CLUSTER.name,
                        "name": self.cluster,
                        "uid": self.uid,
                        "controller": True,
                    }
                ],
            },
        }

    def _deployment(self, name: str, component: str, template: dict[str, Any], pool: str | None = None) -> Body:
        made = self._object(DEPLOYMENT, name, component, pool)
        made["spec"] = {
            "selector": {"matchLabels": selector(self.cluster, component, pool)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "25%"}},
            "template": template,
        }
        return made

    def _service(self) -> Body:
        made = self._object(SERVICE, f"{self.cluster}-api", "api")
        wanted = self.spec.api.service
        made["metadata"]["annotations"] |= wanted.annotations
        made["spec"] = {
            "type": wanted.type,
            "selector": selector(self.cluster, "api"),
            "ports": [{"name": "http", "port": wanted.port, "targetPort": "http", "protocol": "TCP"}],
        }
        return made

    def _disruption_budget(self) -> Body:
        made = self._object(DISRUPTION_BUDGET, f"{self.cluster}-api", "api")
        made["spec"] = {
            "maxUnavailable": self.spec.api.pdb.max_unavailable,
            "selector": {"matchLabels": selector(self.cluster, "api")},
        }
        return made

    def _ingress(self) -> Body:
        made = self._object(INGRESS, f"{self.cluster}-api", "api")
        wanted = self.spec.api.ingress
        made["metadata"]["annotations"] |= wanted.annotations
        backend = {"service": {"name": f"{self.cluster}-api", "port": {"name": "http"}}}
        made["spec"] = {
            **({"ingressClassName": wanted.class_name} if wanted.class_name else {}),
            **(
                {"tls": [{"hosts": [wanted.host], "secretName": wanted.tls_secret_name}]}
                if wanted.tls_secret_name
                else {}
            ),
            "rules": [
                {"host": wanted.host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
            ],
        }
        return made

    def _network_policy(self, component: str) -> Body:
        """Return a policy that lets in what a component serves. Going out stays open: SYNC and EMAIL call anywhere."""
        made = self._object(NETWORK_POLICY, f"{self.cluster}-{component}", component)
        ports = {"api": [pods.API_PORT], "migrate": []}.get(component, [pods.PROBE_PORT])
        made["spec"] = {
            "podSelector": {"matchLabels": selector(self.cluster, component)},
            "policyTypes": ["Ingress"],
            "ingress": [{"ports": [{"port": port, "protocol": "TCP"}]} for port in ports],
        }
        return made

    def _pod_monitor(self) -> Body:
        made = self._object(POD_MONITOR, self.cluster, "monitoring")
        wanted = self.spec.monitoring.pod_monitor
        made["metadata"]["labels"] = wanted.labels | made["metadata"]["labels"]
        every = f"{wanted.interval_seconds}s"
        made["spec"] = {
            "selector": {"matchLabels": {CLUSTER_LABEL: self.cluster}},
            "podMetricsEndpoints": [
                {"port": port, "path": "/metrics", "interval": every} for port in ("http", "probes")
            ],
        }
        return made


def _stamped(manifest: Body) -> Body:
    """Return the manifest with an annotation that stands for all of it."""
    manifest["metadata"]["annotations"][MANIFEST_ANNOTATION] = digest(manifest)
    return manifest
