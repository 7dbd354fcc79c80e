"""The pod templates of the platform's processes: pure, one function a process."""

from typing import Any

from taskflow_operator.names import SECRETS_ANNOTATION, labels, selector
from taskflow_operator.spec import Pool, Process, SecretKey, Spec

API_PORT = 8000
PROBE_PORT = 8001
# The worker gives back what does not end in time; these seconds are for that, and for the kubelet.
RESERVE_S = 15
API_GRACE_S = 40  # the API lets requests end for 20 s, after the 5 s that endpoints need to forget a pod
WEBHOOK_KEYS = {
    "TASKFLOW_WEBHOOK_KEY": "webhook-key",
    "TASKFLOW_WEBHOOK_PREVIOUS_KEY": "webhook-previous-key",
}
OPTIONAL_KEYS = {"TASKFLOW_JWT_PREVIOUS_SECRET": "jwt-previous-secret", **WEBHOOK_KEYS}
Secrets = dict[str, SecretKey]


def secrets_of(spec: Spec, component: str) -> Secrets:
    """Return which keys of which Secrets a process needs, by variable."""
    needed = {"TASKFLOW_DATABASE_URL": spec.database.url_secret_ref, "TASKFLOW_REDIS_URL": spec.redis.url_secret_ref}
    if component == "api":
        needed["TASKFLOW_JWT_SECRET"] = SecretKey(name=spec.auth.secret_ref.name, key="jwt-secret")
    return needed


def optional_secrets_of(spec: Spec, component: str) -> Secrets:
    """Return the keys that a process takes where they exist, by variable."""
    held = {"api": OPTIONAL_KEYS, "scheduler": WEBHOOK_KEYS}.get(component, {})
    return {variable: SecretKey(name=spec.auth.secret_ref.name, key=key) for variable, key in held.items()}


def api_pod(cluster: str, spec: Spec, secrets_hash: str) -> dict[str, Any]:
    """Return the template of the API's pods."""
    container = _container(spec, spec.api, "api", {"TASKFLOW_API_HOST": "0.0.0.0", "TASKFLOW_API_PORT": str(API_PORT)})  # noqa: S104 - a pod's own address
    container["ports"] = [{"name": "http", "containerPort": API_PORT, "protocol": "TCP"}]
    container |= _probes("http", "/health/ready")
    container["lifecycle"] = {"preStop": {"sleep": {"seconds": 5}}}
    return _pod(cluster, spec, spec.api, "api", container, secrets_hash, grace_s=API_GRACE_S)


def scheduler_pod(cluster: str, spec: Spec, secrets_hash: str) -> dict[str, Any]:
    """Return the template of the scheduler's pods."""
    container = _container(spec, spec.scheduler, "scheduler", {"TASKFLOW_PROBE_PORT": str(PROBE_PORT)})
    container["ports"] = [{"name": "probes", "containerPort": PROBE_PORT, "protocol": "TCP"}]
    container |= _probes("probes", "/health/live")
    return _pod(cluster, spec, spec.scheduler, "scheduler", container, secrets_hash, grace_s=40)


def worker_pod(cluster: str, spec: Spec, name: str, pool: Pool, secrets_hash: str) -> dict[str, Any]:
    """Return the template of a pool's pods."""
    grace_s = pool.termination_grace_period_seconds
    own = {
        "TASKFLOW_QUEUES": ",".join(pool.queues),
        "TASKFLOW_SLOTS": str(pool.concurrency),
        "TASKFLOW_SHUTDOWN_GRACE_S": str(grace_s - RESERVE_S),
        "TASKFLOW_PROBE_PORT": str(PROBE_PORT),
    }
    container = _container(spec, pool, "worker", own)
    container["ports"] = [{"name": "probes", "containerPort": PROBE_PORT, "protocol": "TCP"}]
    container |= _probes("probes", "/health/ready")
    return _pod(cluster, spec, pool, "worker", container, secrets_hash, grace_s=grace_s, pool=name)


def migrate_pod(cluster: str, spec: Spec, secrets_hash: str) -> dict[str, Any]:
    """Return the template of the migration's pod."""
    container = _container(spec, spec.migrate, "migrate", {})
    template = _pod(cluster, spec, spec.migrate, "migrate", container, secrets_hash, grace_s=30)
    template["spec"]["restartPolicy"] = "OnFailure"
    return template


def _container(spec: Spec, process: Process, command: str, own: dict[str, str]) -> dict[str, Any]:
    variables: dict[str, dict[str, Any]] = {name: {"value": value} for name, value in own.items()}
    for variable in process.env:
        source = {"value": variable.value} if variable.value is not None else {"valueFrom": variable.value_from}
        variables[variable.name] = source
    for name, key in secrets_of(spec, command).items():
        variables[name] = _secret(key)
    for name, key in optional_secrets_of(spec, command).items():
        variables[name] = _secret(key, optional=True)
    return {
        "name": command,
        "image": spec.image.reference,
        "imagePullPolicy": spec.image.pull_policy,
        "args": ["taskflow", command],
        "env": [{"name": name, **source} for name, source in variables.items()],
        **({"envFrom": process.env_from} if process.env_from else {}),
        "resources": process.resources.model_dump(exclude_defaults=True),
        # The last lines of a process that fails become readable in the pod's status, and from there in ours.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - an emptyDir of the pod's own
    }


def _secret(key: SecretKey, *, optional: bool = False) -> dict[str, Any]:
    reference: dict[str, Any] = {"name": key.name, "key": key.key}
    return {"valueFrom": {"secretKeyRef": reference | ({"optional": True} if optional else {})}}


def _probes(port: str, ready: str) -> dict[str, Any]:
    def probe(path: str, **timing: int) -> dict[str, Any]:
        return {"httpGet": {"path": path, "port": port}, "timeoutSeconds": 5, **timing}

    return {
        "startupProbe": probe("/health/live", periodSeconds=2, failureThreshold=60),
        "livenessProbe": probe("/health/live", periodSeconds=10, failureThreshold=6),
        "readinessProbe": probe(ready, periodSeconds=5, failureThreshold=3),
    }


def _pod(
    cluster: str,
    spec: Spec,
    process: Process,
    component: str,
    container: dict[str, Any],
    secrets_hash: str,
    *,
    grace_s: int,
    pool: str | None = None,
) -> dict[str, Any]:
    own = process.pod_template
    optional = {
        "imagePullSecrets": [{"name": name} for name in spec.image.pull_secrets],
        "nodeSelector": own.node_selector,
        "tolerations": own.tolerations,
        "affinity": own.affinity,
        "priorityClassName": own.priority_class_name,
    }
    return {
        "metadata": {
            "labels": own.labels | labels(cluster, component, pool),
            "annotations": own.annotations | {SECRETS_ANNOTATION: secrets_hash},
        },
        "spec": {
            "serviceAccountName": f"{cluster}-{component}",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            # As process 1 a program that is still starting ignores SIGTERM, and works on until it is killed.
            "shareProcessNamespace": True,
            "terminationGracePeriodSeconds": grace_s,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": own.run_as_user,
                "runAsGroup": own.run_as_user,
                "fsGroup": own.run_as_user,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "topologySpreadConstraints": own.topology_spread_constraints or [_spread(cluster, component, pool)],
            "containers": [container],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
            **{name: value for name, value in optional.items() if value},
        },
    }


def _spread(cluster: str, component: str, pool: str | None) -> dict[str, Any]:
    return {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": selector(cluster, component, pool)},
    }
