"""What a cluster's status says: one pure function from what is seen, planned and reported."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from pydantic import ValidationError

from taskflow_operator.kinds import DEPLOYMENT, Body
from taskflow_operator.names import selector, selector_text, worker_name
from taskflow_operator.observed import Key, Observed, replicas, rolling_out
from taskflow_operator.plan import Plan
from taskflow_operator.problems import Problem, problems
from taskflow_operator.scaler import Flag, PoolReport
from taskflow_operator.spec import DEFAULT_POOL, Spec
from taskflow_operator.status import (
    Condition,
    ConditionType,
    PoolStatus,
    ProcessStatus,
    ScalingInputs,
    ScalingStatus,
    Status,
)

MAX_MESSAGE = 2000
Reports = Mapping[str, PoolReport]
Said = tuple[ConditionType, bool | None, str, str]


def status_of(observed: Observed, spec: Spec, before: Status, made: Plan, reports: Reports, *, now: datetime) -> Status:
    """Return the cluster's new status; equal to `before` when nothing changed, times included."""
    wrong = problems(observed, now)
    generation = int(observed.metadata.get("generation", 0))
    saying = [*_life(observed, spec, made, wrong), *_scaling(reports, before)]
    conditions = [_condition(before, said, generation, now) for said in saying]
    pools = [_pool(observed, name, reports.get(name), before) for name in spec.pools()]
    return Status(
        observed_generation=generation,
        phase=_phase({condition.type: condition for condition in conditions}),
        conditions=conditions,
        api=_process(observed, "api"),
        scheduler=_process(observed, "scheduler"),
        workers=pools[0],
        pools=pools[1:],
        scaling=_decision(reports.get(DEFAULT_POOL), before, now),
    )


def _life(observed: Observed, spec: Spec, made: Plan, wrong: Sequence[Problem]) -> Iterator[Said]:
    paused = made.hold is not None and made.hold.reason == "Paused"
    yield _ready(observed, spec)
    yield _progressing(observed, made)
    text = "; ".join(problem.message for problem in wrong)
    yield "Degraded", bool(wrong), wrong[0].reason if wrong else "AllWell", text
    still = _pods_wanted(observed)
    if spec.suspend:
        message = f"waiting for {still} pods to drain" if still else "everything is stopped, the objects stay"
        yield "Suspended", not still, "Draining" if still else "Suspended", message
    else:
        yield "Suspended", False, "NotAsked", ""
    yield "Paused", paused, "Asked" if paused else "NotAsked", made.hold.message if paused and made.hold else ""


def _ready(observed: Observed, spec: Spec) -> Said:
    """Say whether requests are served and due tasks are sent; a broker that is away changes nothing about that."""
    if spec.suspend:
        return "Ready", False, "Suspended", "spec.suspend is true"
    for name in ("api", "scheduler"):
        if not _process(observed, name).ready_replicas:
            deployment = observed.children.get(_deployment_key(observed, name))
            text = f"no pod of the {name} is ready" if deployment else f"the {name} is not deployed yet"
            return "Ready", False, f"{name.capitalize()}NotReady", text
    return "Ready", True, "Serving", "API and scheduler are ready"


def _progressing(observed: Observed, made: Plan) -> Said:
    if made.hold is not None and made.hold.reason == "Migrating":
        return "Progressing", True, "Migrating", made.hold.message
    if made.hold is not None:
        return "Progressing", False, made.hold.reason, made.hold.message
    if made.actions:
        return "Progressing", True, "Applying", f"{len(made.actions)} objects differ from the spec"
    moving = sorted(
        key.name for key, body in observed.children.items() if key.kind == DEPLOYMENT.name and rolling_out(body)
    )
    if moving:
        return "Progressing", True, "RollingOut", f"pods are replaced: {', '.join(moving)}"
    return "Progressing", False, "UpToDate", ""


def _scaling(reports: Reports, before: Status) -> Iterator[Said]:
    """Say the worst of all pools, and which one that is; a pool without a report yet leaves it as it was."""
    good: dict[ConditionType, bool] = {"BrokerReachable": True, "ScalingActive": True, "ScalingLimited": False}
    for kind, wanted in good.items():
        flags = [(name, _flag(report, kind)) for name, report in reports.items()]
        bad = [(name, flag) for name, flag in flags if flag.status != wanted]
        if bad or flags:
            name, flag = (bad or flags)[0]
            text = flag.message if name == DEFAULT_POOL else f"pool {name}: {flag.message}"
            yield kind, flag.status, flag.reason, text
        elif kept := before.condition(kind):
            yield kind, {"True": True, "False": False}.get(kept.status), kept.reason, kept.message
        else:
            yield kind, None, "NotReadYet", ""


def _flag(report: PoolReport, kind: ConditionType) -> Flag:
    flags = {"BrokerReachable": report.broker_reachable, "ScalingActive": report.scaling_active}
    return flags.get(kind, report.scaling_limited)


def _condition(before: Status, said: Said, generation: int, now: datetime) -> Condition:
    kind, truth, reason, message = said
    text = {True: "True", False: "False", None: "Unknown"}[truth]
    old = before.condition(kind)
    since = old.last_transition_time if old and old.status == text else _stamp(now)
    return Condition.model_validate(
        {
            "type": kind,
            "status": text,
            "reason": reason,
            "message": message[:MAX_MESSAGE],
            "lastTransitionTime": since,
            "observedGeneration": generation,
        }
    )


def _phase(conditions: Mapping[str, Condition]) -> str:
    order = ("Paused", "Suspended", "Degraded", "Progressing", "Ready")
    true = [kind for kind in order if conditions[kind].status == "True"]
    if not true:
        return "Pending"
    kind = true[0]
    return {"Progressing": conditions[kind].reason, "Ready": "Running"}.get(kind, kind)


def _deployment_key(observed: Observed, component: str) -> Key:
    return Key(DEPLOYMENT.name, f"{observed.metadata['name']}-{component}")


def _process(observed: Observed, component: str) -> ProcessStatus:
    body = observed.children.get(_deployment_key(observed, component))
    if body is None or observed.owner(body) != "ours":
        return ProcessStatus()
    status = body.get("status", {})
    return ProcessStatus(
        replicas=status.get("replicas", 0),
        ready_replicas=status.get("readyReplicas", 0),
        image=body["spec"]["template"]["spec"]["containers"][0]["image"],
    )


def _pool(observed: Observed, name: str, report: PoolReport | None, before: Status) -> PoolStatus:
    cluster = observed.metadata["name"]
    body: Body = observed.children.get(Key(DEPLOYMENT.name, worker_name(cluster, name)), {})
    status = body.get("status", {})
    known = {pool.name: pool for pool in (before.workers, *before.pools)}.get(name, PoolStatus())
    return PoolStatus(
        name=name,
        replicas=status.get("replicas", 0),
        ready_replicas=status.get("readyReplicas", 0),
        busy=report.busy if report else known.busy,
        idle=report.idle if report else known.idle,
        draining=report.draining if report else known.draining,
        desired=report.decision.desired if report else known.desired,
        reason=report.decision.words if report else known.reason,
        selector=selector_text(selector(cluster, "worker", name)),
    )


def _decision(report: PoolReport | None, before: Status, now: datetime) -> ScalingStatus:
    if report is None:
        return before.scaling
    demand, decision = report.demand, report.decision
    return ScalingStatus(
        recommended=decision.recommended,
        desired=decision.desired,
        reason=decision.words,
        last_scale_time=_stamp(now) if report.replicas != demand.replicas else before.scaling.last_scale_time,
        inputs=ScalingInputs(waiting=demand.waiting, in_flight=demand.running, oldest_seconds=round(demand.oldest_s)),
    )


def _pods_wanted(observed: Observed) -> int:
    return sum(replicas(body) for key, body in observed.children.items() if key.kind == DEPLOYMENT.name)


def _stamp(now: datetime) -> str:
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def invalid_status(before: Status, metadata: Body, error: ValidationError, *, now: datetime) -> Status:
    """Return the status of a cluster whose spec this version cannot read; what runs is left as it is."""
    wrong = "; ".join(
        f"spec.{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()[:5]
    )
    generation = int(metadata.get("generation", 0))
    said: list[Said] = [("Degraded", True, "InvalidSpec", wrong), ("Progressing", False, "InvalidSpec", wrong)]
    changed = {kind for kind, *_ in said}
    kept = [condition for condition in before.conditions if condition.type not in changed]
    conditions = [*kept, *(_condition(before, item, generation, now) for item in said)]
    return before.model_copy(update={"conditions": conditions, "phase": "Degraded", "observed_generation": generation})
