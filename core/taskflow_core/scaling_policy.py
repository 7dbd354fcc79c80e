"""What a pool's `autoscaling` may say: the policy that the operator and the simulator both read. Pure.

The names and bounds are those of the TaskFlowCluster; `behavior` has the fields of the HPA v2 and its meaning.
"""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

MAX_REPLICAS = 1000
MAX_WINDOW_S = 3600
MAX_PERIOD_S = 1800

Replicas = Annotated[int, Field(ge=0, le=MAX_REPLICAS)]


class _Part(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, validate_by_name=True, serialize_by_alias=True
    )


class Mode(StrEnum):
    """Who decides the number of replicas."""

    INTERNAL = "Internal"
    EXTERNAL = "External"
    MANUAL = "Manual"
    DRY_RUN = "DryRun"


class FallbackBehavior(StrEnum):
    """What happens when the queues cannot be read."""

    HOLD = "Hold"
    STATIC = "Static"
    AT_LEAST = "AtLeast"


class RatePolicy(_Part):
    """How far the replicas may move within a period."""

    type: Literal["Pods", "Percent"]
    value: Annotated[int, Field(ge=1, le=10_000)]
    period_seconds: Annotated[int, Field(ge=1, le=MAX_PERIOD_S)]


class ScalingRules(_Part):
    """One direction: how long to wait for a better reason, and how fast to go."""

    stabilization_window_seconds: Annotated[int, Field(ge=0, le=MAX_WINDOW_S)]
    select_policy: Literal["Max", "Min", "Disabled"] = "Max"
    policies: Annotated[tuple[RatePolicy, ...], Field(min_length=1, max_length=8)]


UP = ScalingRules(
    stabilization_window_seconds=0,
    policies=(
        RatePolicy(type="Pods", value=4, period_seconds=15),
        RatePolicy(type="Percent", value=100, period_seconds=15),
    ),
)
DOWN = ScalingRules(
    stabilization_window_seconds=300,
    policies=(
        RatePolicy(type="Percent", value=50, period_seconds=60),
        RatePolicy(type="Pods", value=2, period_seconds=60),
    ),
)


class Behavior(_Part):
    """Both directions; up as the HPA does by default, down more slowly than it."""

    scale_up: ScalingRules = UP
    scale_down: ScalingRules = DOWN


class Fallback(_Part):
    """How many reads may fail, and what then; `replicas` is for Static and AtLeast.

    Neither goes below what is there: no data is no reason to scale in.
    """

    failure_threshold: Annotated[int, Field(ge=1, le=100)] = 3
    behavior: FallbackBehavior = FallbackBehavior.HOLD
    replicas: Replicas | None = None

    @model_validator(mode="after")
    def _names_a_number(self) -> Self:
        if self.behavior is not FallbackBehavior.HOLD and self.replicas is None:
            raise ValueError(f"fallback.replicas is missing: {self.behavior} needs it")
        return self


class ScalingPolicy(_Part):
    """How a pool follows its queues. Times in seconds."""

    mode: Mode = Mode.INTERNAL
    min_replicas: Replicas = 1
    max_replicas: Annotated[int, Field(ge=1, le=MAX_REPLICAS)] = 10
    min_idle: Replicas = 0
    polling_interval_seconds: Annotated[int, Field(ge=1, le=300)] = 5
    tasks_per_slot: Annotated[int, Field(ge=1, le=10_000)] = 5
    latency_slo_seconds: Annotated[int, Field(ge=1, le=86_400)] | None = Field(default=None, alias="latencySLOSeconds")
    cold_start_seconds: Annotated[int, Field(ge=0, le=3600)] = 15
    scale_to_zero_after_seconds: Annotated[int, Field(ge=0, le=86_400)] = 300
    tolerance_percent: Annotated[int, Field(ge=0, le=100)] = 10
    behavior: Behavior = Behavior()
    fallback: Fallback = Fallback()

    @model_validator(mode="after")
    def _bounds_agree(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"minReplicas {self.min_replicas} is more than maxReplicas {self.max_replicas}")
        if self.min_idle > self.max_replicas:
            raise ValueError(f"minIdle {self.min_idle} is more than maxReplicas {self.max_replicas}")
        return self
