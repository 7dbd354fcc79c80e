"""What a TaskFlowCluster's `spec` may hold: the one source of the CRD's schema and of what the operator reads.

Bounds and patterns become the schema; what spans several fields is a CEL rule beside the model it belongs to. Every
list, map and string has an upper bound, so that the API server can bound the cost of the rules.
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from taskflow_core.scaling_policy import ScalingPolicy
from taskflow_operator.parts import (
    QUEUE,
    Free,
    FreeList,
    Label,
    Name,
    Part,
    Quantity,
    Replicas,
    Strings,
    keyed_by,
    rule,
    rules,
)

DEFAULT_POOL = "default"
# The operator derives these from fields of the spec; a second source would make its reckoning wrong.
OWN_VARIABLES = (
    "TASKFLOW_DATABASE_URL",
    "TASKFLOW_REDIS_URL",
    "TASKFLOW_JWT_SECRET",
    "TASKFLOW_JWT_PREVIOUS_SECRET",
    "TASKFLOW_WEBHOOK_KEY",
    "TASKFLOW_WEBHOOK_PREVIOUS_KEY",
    "TASKFLOW_QUEUES",
    "TASKFLOW_SLOTS",
    "TASKFLOW_SHUTDOWN_GRACE_S",
    "TASKFLOW_PROBE_PORT",
    "TASKFLOW_API_PORT",
)


class SecretKey(Part):
    """A key of a Secret in the cluster's own namespace."""

    name: Name
    key: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")] = "url"


class SecretName(Part):
    """A Secret in the cluster's own namespace."""

    name: Name


class Image(Part):
    """The image that all processes of the platform run."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "has(self.tag) || has(self.digest)", "image: set tag or digest, without both the image moves by itself"
            )
        )
    )

    repository: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[a-zA-Z0-9][-a-zA-Z0-9._:/]*$")]
    tag: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")] | None = None
    digest: Annotated[str, Field(max_length=71, pattern=r"^sha256:[a-f0-9]{64}$")] | None = None
    """Wins over the tag."""
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    pull_secrets: Annotated[list[Name], Field(max_length=8)] = []

    @property
    def reference(self) -> str:
        """Return the name that a container runtime pulls."""
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.repository}{tag}{'@' + self.digest if self.digest else ''}"


class Database(Part):
    """Where PostgreSQL is."""

    url_secret_ref: SecretKey


class Redis(Part):
    """Where Redis or Valkey is."""

    url_secret_ref: SecretKey


class Auth(Part):
    """Which Secret holds the keys.

    `jwt-secret`; where you use webhooks `webhook-key`; while you rotate either, `jwt-previous-secret` and
    `webhook-previous-key`.
    """

    secret_ref: SecretName


class Variable(Part):
    """An environment variable, as in a container."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                f"!(self.name in {list(OWN_VARIABLES)})",
                "env: this variable is set by the operator, use the field of the spec that stands for it",
            ),
            rule("has(self.value) != has(self.valueFrom)", "env: set exactly one of value and valueFrom"),
        )
    )

    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    value: Annotated[str, Field(max_length=4096)] | None = None
    value_from: Free | None = None


class Resources(Part):
    """Requests and limits, as in a container."""

    requests: Annotated[dict[str, Quantity], Field(max_length=8)] = {}
    limits: Annotated[dict[str, Quantity], Field(max_length=8)] = {}


class PodTemplate(Part):
    """What pods get beside what the operator sets."""

    annotations: Strings = {}
    labels: Strings = {}
    node_selector: Strings = {}
    tolerations: FreeList = []
    affinity: Free | None = None
    topology_spread_constraints: FreeList = []
    priority_class_name: Annotated[str, Field(max_length=253)] | None = None
    run_as_user: Annotated[int, Field(ge=1, le=2_147_483_647)] = 65_532
    """User and group of the processes; never 0."""


class Process(Part):
    """What every kind of pod has."""

    resources: Resources = Resources()
    env: Annotated[list[Variable], Field(max_length=64)] = []
    env_from: FreeList = []
    pod_template: PodTemplate = PodTemplate()


class Service(Part):
    """The Service in front of the API."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    port: Annotated[int, Field(ge=1, le=65_535)] = 80
    annotations: Strings = {}


class Ingress(Part):
    """An Ingress in front of the API, on request."""

    model_config = ConfigDict(
        json_schema_extra=rules(rule("!self.enabled || has(self.host)", "ingress: set host when enabled is true"))
    )

    enabled: bool = False
    host: Name | None = None
    class_name: Name | None = None
    tls_secret_name: Name | None = None
    annotations: Strings = {}


class DisruptionBudget(Part):
    """A PodDisruptionBudget for the API's pods, on request."""

    enabled: bool = False
    max_unavailable: Annotated[int, Field(ge=1, le=100)] = 1


class Api(Process):
    """The REST API."""

    replicas: Annotated[int, Field(ge=1, le=100)] = 2
    service: Service = Service()
    ingress: Ingress = Ingress()
    pdb: DisruptionBudget = DisruptionBudget()


class Scheduler(Process):
    """The scheduler: due tasks, lost tasks, schedules, retention. Several may run."""

    replicas: Annotated[int, Field(ge=1, le=10)] = 1


class Migrate(Process):
    """The Job that brings the database's schema up before an image rolls out; the rollout waits for it."""

    enabled: bool = True


AUTOSCALING_RULES = rules(
    rule("self.minReplicas <= self.maxReplicas", "autoscaling: minReplicas must not be above maxReplicas"),
    rule("self.minIdle <= self.maxReplicas", "autoscaling: minIdle must not be above maxReplicas"),
    rule(
        "self.fallback.behavior == 'Hold' || has(self.fallback.replicas)",
        "autoscaling.fallback: Static and AtLeast need replicas",
    ),
)
POOL_RULES = (
    rule(
        "self.maxTaskSeconds + 30 <= self.terminationGracePeriodSeconds",
        "workers: maxTaskSeconds + 30 must not be above terminationGracePeriodSeconds, or a deploy cuts tasks off",
    ),
)


class Pool(Process):
    """A group of workers that take from the same queues."""

    model_config = ConfigDict(json_schema_extra=rules(*POOL_RULES))

    queues: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=64, pattern=QUEUE)]],
        Field(min_length=1, max_length=32, json_schema_extra={"x-kubernetes-list-type": "set"}),
    ] = ["high", "default", "low"]
    """Most urgent first."""
    concurrency: Annotated[int, Field(ge=1, le=1000)] = 4
    """Slots: tasks at a time in one pod."""
    replicas: Replicas = 1
    """Used by the modes Manual and External; kubectl scale and an HPA write the default pool's."""
    termination_grace_period_seconds: Annotated[int, Field(ge=40, le=86_400)] = 600
    max_task_seconds: Annotated[int, Field(ge=1, le=86_370)] = 540
    autoscaling: Annotated[ScalingPolicy, Field(json_schema_extra=AUTOSCALING_RULES)] = ScalingPolicy()


class ExtraPool(Pool):
    """A pool beside the default one."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            *POOL_RULES, rule("self.name != 'default'", "extraPools: the name default is that of spec.workers")
        )
    )

    name: Label


class PodMonitor(Part):
    """A PodMonitor of the Prometheus operator, on request."""

    enabled: bool = False
    interval_seconds: Annotated[int, Field(ge=1, le=3600)] = 30
    labels: Strings = {}


class Monitoring(Part):
    """How the platform is watched."""

    pod_monitor: PodMonitor = PodMonitor()


class NetworkPolicy(Part):
    """NetworkPolicies for incoming traffic, on request."""

    enabled: bool = False


class Spec(Part):
    """What the platform shall be."""

    image: Image
    suspend: bool = False
    """Stop everything after draining; the objects stay."""
    paused: bool = False
    """Reconcile nothing; the annotation taskflow.io/paused does the same."""
    database: Database
    redis: Redis
    auth: Auth
    api: Api = Api()
    scheduler: Scheduler = Scheduler()
    migrate: Migrate = Migrate()
    workers: Pool = Pool()
    extra_pools: Annotated[list[ExtraPool], Field(max_length=16, json_schema_extra=keyed_by("name"))] = []
    monitoring: Monitoring = Monitoring()
    network_policy: NetworkPolicy = NetworkPolicy()

    def pools(self) -> dict[str, Pool]:
        """Return the pools by name, the default one first."""
        return {DEFAULT_POOL: self.workers, **{pool.name: pool for pool in self.extra_pools}}
