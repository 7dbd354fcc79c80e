"""What to do about a cluster: one pure function from what is seen and what is wanted to a list of actions."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from taskflow_operator.kinds import DEPLOYMENT, JOB, Body, Kind, kind_of
from taskflow_operator.manifests import COMPONENTS, Maker
from taskflow_operator.names import COMPONENT_LABEL
from taskflow_operator.observed import Key, Observed, drifted, job_state, key_of, replicas, stamp_of
from taskflow_operator.spec import Spec

RETRY_MIGRATION = timedelta(minutes=5)


class Apply(NamedTuple):
    """Bring an object to what the manifest says; `uid` is that of the object, None when it is to be made."""

    manifest: Body
    uid: str | None


class Delete(NamedTuple):
    """Delete exactly this object."""

    kind: Kind
    name: str
    uid: str


class Scale(NamedTuple):
    """Set the pods of a Deployment that was read at this version."""

    name: str
    replicas: int
    resource_version: str


Action = Apply | Delete | Scale


class Hold(NamedTuple):
    """Why Deployments stay as they are for now."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Actions in their order, and what holds the rollout back, if anything does."""

    actions: tuple[Action, ...] = ()
    hold: Hold | None = None


def plan(observed: Observed, spec: Spec, now: datetime) -> Plan:
    """Return what brings the cluster from what is seen to what the spec says; nothing when it is there already.

    Deployments roll out only after the Job of their image has migrated the schema, and wait for missing Secrets. What
    belongs to others is never touched.
    """
    if spec.paused or observed.paused:
        return Plan(hold=Hold("Paused", "nothing is reconciled until spec.paused and taskflow.io/paused are away"))
    maker = Maker(observed.metadata, spec, {name: observed.hashes.get(name, "") for name in COMPONENTS})
    base, job, workloads = maker.base(), maker.migration(), maker.workloads()
    hold = _hold(observed, spec, job)
    wanted = list(base)
    if job is not None and not observed.missing and not spec.suspend:
        wanted.append(job)
    if hold is None:
        wanted += workloads
    kept = {key_of(manifest) for manifest in (*base, *workloads, *([job] if job else []))}
    actions: list[Action] = [
        *_removals(observed, kept, keep_jobs=hold is not None, now=now),
        *(action for manifest in wanted if (action := _apply(observed, manifest))),
        *_counts(observed, spec),
    ]
    return Plan(tuple(actions), hold)


def _hold(observed: Observed, spec: Spec, job: Body | None) -> Hold | None:
    if observed.missing:
        return Hold("SecretMissing", "; ".join(observed.missing))
    if spec.suspend:
        return Hold("Suspended", "no pods are wanted until spec.suspend is false")
    if job is None:
        return None
    found = observed.children.get(key_of(job))
    state = job_state(found) if found and observed.owner(found) == "ours" else "running"
    if state == "failed":
        return Hold("MigrationFailed", f"{key_of(job)} failed, it is tried again every 5 minutes")
    return Hold("Migrating", f"waiting for {key_of(job)}") if state == "running" else None


def _apply(observed: Observed, manifest: Body) -> Apply | None:
    key = key_of(manifest)
    refusal = observed.refused.get(key)
    if key in observed.taken or (refusal and refusal.stamp == stamp_of(manifest)):
        return None
    found = observed.children.get(key)
    if found is None:
        return Apply(manifest, None)
    owner = observed.owner(found)
    if owner in {"foreign", "former"} or found["metadata"].get("deletionTimestamp"):
        return None
    uid = found["metadata"]["uid"]
    if owner == "orphan":
        return Apply(manifest, uid)
    if key.kind == JOB.name:  # a Job cannot be changed; what matters is in its name
        return None
    return Apply(manifest, uid) if drifted(found, manifest, observed.settled.get(key)) else None


def _removals(observed: Observed, kept: set[Key], *, keep_jobs: bool, now: datetime) -> Iterator[Delete]:
    for key, found in observed.children.items():
        if found["metadata"].get("deletionTimestamp"):
            continue
        owner = observed.owner(found)
        unwanted = (
            key not in kept and owner == "ours" and not ((keep_jobs and key.kind == JOB.name) or has_to_drain(found))
        )
        if owner == "former" or unwanted or (owner == "ours" and _failed_long_ago(found, now)):
            yield Delete(kind_of(found), key.name, found["metadata"]["uid"])


def _failed_long_ago(found: Body, now: datetime) -> bool:
    if found["kind"] != JOB.name or job_state(found) != "failed":
        return False
    times = [condition.get("lastTransitionTime", "") for condition in found["status"]["conditions"]]
    return any(time and datetime.fromisoformat(time) + RETRY_MIGRATION < now for time in times)


def _counts(observed: Observed, spec: Spec) -> Iterator[Scale]:
    """Yield the counts of API and scheduler; those of pools are the scaler's."""
    deployments = [
        found
        for key, found in observed.children.items()
        if key.kind == DEPLOYMENT.name and observed.owner(found) == "ours"
    ]
    working = any(replicas(found) for found in deployments if _component(found) == "worker")
    for found in deployments:
        asked = {"api": spec.api.replicas, "scheduler": spec.scheduler.replicas}.get(_component(found))
        if asked is None:
            continue
        wanted = 0 if spec.suspend and not working else asked
        if replicas(found) != wanted:
            yield Scale(found["metadata"]["name"], wanted, found["metadata"]["resourceVersion"])


def has_to_drain(found: Body) -> bool:
    """Whether a Deployment still asks for workers, which may hold tasks."""
    return found["kind"] == DEPLOYMENT.name and _component(found) == "worker" and replicas(found) > 0


def _component(body: Body) -> str:
    return str(body["metadata"].get("labels", {}).get(COMPONENT_LABEL, ""))
