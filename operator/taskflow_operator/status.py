"""What a TaskFlowCluster's `status` holds. The operator alone writes it."""

from typing import Annotated, Literal

from pydantic import Field

from taskflow_operator.parts import Part, keyed_by

ConditionType = Literal[
    "Ready",
    "Progressing",
    "Degraded",
    "BrokerReachable",
    "ScalingActive",
    "ScalingLimited",
    "Suspended",
    "Paused",
]
Truth = Literal["True", "False", "Unknown"]
Message = Annotated[str, Field(max_length=2048)]
Count = Annotated[int, Field(ge=0)]


class Condition(Part):
    """One thing that is or is not so, with the reason, and since when."""

    type: ConditionType
    status: Truth
    reason: Annotated[str, Field(min_length=1, max_length=64)]
    message: Message = ""
    last_transition_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    observed_generation: Count = 0


class ProcessStatus(Part):
    """How the pods of the API or the scheduler stand."""

    replicas: Count = 0
    ready_replicas: Count = 0
    image: Annotated[str, Field(max_length=512)] = ""


class PoolStatus(Part):
    """How a pool of workers stands: pods that exist and are ready, pods at work, pods wanted and why, in words."""

    name: Annotated[str, Field(max_length=63)] = ""
    replicas: Count = 0
    ready_replicas: Count = 0
    busy: Count = 0
    idle: Count = 0
    draining: Count = 0
    desired: Count = 0
    reason: Message = ""
    selector: Annotated[str, Field(max_length=512)] = ""


class ScalingInputs(Part):
    """What a decision was made from: tasks, and the age of the oldest waiting one in seconds."""

    waiting: Count = 0
    in_flight: Count = 0
    oldest_seconds: Count = 0


class ScalingStatus(Part):
    """The last decision about the default pool."""

    recommended: Count = 0
    desired: Count = 0
    reason: Message = ""
    last_scale_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None = None
    inputs: ScalingInputs = ScalingInputs()


class Status(Part):
    """What the platform is."""

    observed_generation: Count = 0
    phase: Annotated[str, Field(max_length=32)] = "Pending"
    conditions: Annotated[
        list[Condition],
        Field(max_length=16, json_schema_extra=keyed_by("type")),
    ] = []
    api: ProcessStatus = ProcessStatus()
    scheduler: ProcessStatus = ProcessStatus()
    workers: PoolStatus = PoolStatus()
    pools: Annotated[
        list[PoolStatus],
        Field(max_length=16, json_schema_extra=keyed_by("name")),
    ] = []
    scaling: ScalingStatus = ScalingStatus()

    def condition(self, kind: ConditionType) -> Condition | None:
        """Return the condition of that type, if it was ever set."""
        return next((condition for condition in self.conditions if condition.type == kind), None)
