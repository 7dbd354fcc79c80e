"""What is worth an event: conditions that changed, and what the scaler said. Pure."""

from collections.abc import Iterator, Mapping, Sequence

from taskflow_core.clock import utc_now
from taskflow_core.scaling import Reason
from taskflow_operator.kinds import CLUSTER, EVENT, Body
from taskflow_operator.names import MANAGER
from taskflow_operator.spec import DEFAULT_POOL
from taskflow_operator.status import Condition, ConditionType, Status

MAX_MESSAGE = 1000
# Conditions that are bad news when they are true, and those that are when they are false.
ALARMING: dict[ConditionType, str] = {"Degraded": "True", "BrokerReachable": "False", "ScalingActive": "False"}
TOLD: tuple[ConditionType, ...] = (
    "Ready",
    "Degraded",
    "Progressing",
    "BrokerReachable",
    "ScalingActive",
    "Suspended",
    "Paused",
)
AS_ASKED = frozenset({Reason.FIXED, Reason.SUSPENDED})


def news(cluster: Body, before: Status, after: Status, said: Mapping[str, Sequence[str]]) -> Iterator[Body]:
    """Yield an event for each condition that turned, and for each sentence of the pools' scalers."""
    for kind in TOLD:
        old, new = before.condition(kind), after.condition(kind)
        if new is None or not _turned(old, new):
            continue
        warning = ALARMING.get(kind) == new.status and new.reason not in AS_ASKED
        text = f"{kind} is {new.status}: {new.message or new.reason}"
        yield _event(cluster, "Warning" if warning else "Normal", new.reason, text)
    for pool, sentences in said.items():
        for sentence in sentences:
            where = "" if pool == DEFAULT_POOL else f"pool {pool}: "
            yield _event(cluster, "Normal", "Scaling", where + sentence)


def _turned(old: Condition | None, new: Condition) -> bool:
    if old is None:
        return new.status == "True" and new.type in {"Degraded", "Progressing", "Suspended", "Paused"}
    return old.status != new.status or (new.type == "Degraded" and new.status == "True" and old.reason != new.reason)


def _event(cluster: Body, kind: str, reason: str, message: str) -> Body:
    metadata = cluster["metadata"]
    now = utc_now().strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": EVENT.api_version,
        "kind": EVENT.name,
        "metadata": {"generateName": f"{metadata['name']}.", "namespace": metadata["namespace"]},
        "involvedObject": {
            "apiVersion": CLUSTER.api_version,
            "kind": CLUSTER.name,
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
        },
        "type": kind,
        "reason": reason,
        "message": message[:MAX_MESSAGE],
        "source": {"component": MANAGER},
        "reportingComponent": MANAGER,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
