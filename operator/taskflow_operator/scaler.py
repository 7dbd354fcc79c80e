"""Brings a pool to the size its queues ask for, and takes only idle workers away.

Scaling in has three phases. A drain flag is raised for each victim, and its worker says that it obeys and holds
nothing; the flags are held and the workers asked again, and only then is the victims' deletion cost set; the replica
count is written with the resourceVersion of the read. Whatever fails releases everything. An operator that dies in
between leaves flags that the next one lowers at its first look, or that expire.
"""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

from pydantic import SecretStr

from taskflow_core.beacons import DRAIN_TTL_S
from taskflow_core.logs import get_logger
from taskflow_core.scaling import Decision, Demand, History, Overrides, Reason, desired_replicas
from taskflow_core.scaling_policy import Mode, ScalingPolicy
from taskflow_operator.drain import Drain
from taskflow_operator.signals import Reading, Signals, Unreadable, connect
from taskflow_operator.victims import PodView, choose

DELETION_COST = -1000
WRITE_WITHIN_S = DRAIN_TTL_S / 2  # after the flags were held; an operator that stood still meanwhile starts over

log = get_logger(__name__)


class Stale(Exception):
    """The object changed since it was read (409): nothing was written."""


class Cluster(Protocol):
    """What the scaler does to Kubernetes. Every call is bounded in time; other errors end the tick."""

    async def set_replicas(self, deployment: str, replicas: int, resource_version: str) -> None:
        """Write the Deployment's `/scale` with the resourceVersion of the read.

        Raises:
            Stale: the Deployment changed since.
        """

    async def set_deletion_cost(self, pod: str, cost: int | None) -> None:
        """Annotate the pod with its `pod-deletion-cost`, None to take that away; a pod that is gone is no error."""


@dataclass(frozen=True, slots=True)
class PoolView:
    """A pool as the operator last saw it.

    `replicas` is the Deployment's `spec.replicas`, `resource_version` that read's; `target` the spec's own `replicas`,
    which counts in the modes Manual and External.
    """

    cluster_uid: str
    name: str
    deployment: str
    replicas: int
    resource_version: str
    pods: Sequence[PodView]
    rollout_in_progress: bool
    policy: ScalingPolicy
    slots: int
    queues: Sequence[str]
    target: int
    overrides: Overrides = field(default_factory=Overrides)


@dataclass(frozen=True, slots=True)
class Flag:
    """The inputs of a condition."""

    status: bool
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class PoolReport:
    """What a tick saw and did. `events` are sentences for Kubernetes events, empty when nothing changed.

    `replicas` is what the Deployment asks for now; `busy`, `idle` and `draining` count pods.
    """

    decision: Decision
    demand: Demand
    replicas: int
    busy: int
    idle: int
    draining: int
    broker_reachable: Flag
    scaling_active: Flag
    scaling_limited: Flag
    events: Sequence[str] = ()


class PoolScaler:
    """Scales one pool; `tick` is called every polling interval, one at a time."""

    def __init__(self, cluster: Cluster, redis_url: SecretStr) -> None:
        self._cluster = cluster
        self._redis = connect(redis_url.get_secret_value())
        self._signals = Signals(self._redis)
        self._drain = Drain(self._redis, self._signals)
        self._history: History | None = None
        self._held_at = 0.0
        self._took_over = False

    async def close(self) -> None:
        """Close the connections; flags that stand expire."""
        await self._redis.aclose()

    async def tick(self, view: PoolView, now: datetime) -> PoolReport:
        """Read, decide, act; report what was seen and done.

        Raises:
            Exception: what the cluster's calls raise but Stale; the flags are lowered first.
        """
        reading, broker = await self._read(view, now)
        demand = _demand(view, reading, broker)
        decision = self._decide(view, demand, now)
        self._history = decision.history
        step = _Step(view.replicas)
        if view.policy.mode is not Mode.DRY_RUN:
            step = await self._act(view, reading, decision, now)
        return _report(view, reading, broker, demand, decision, step)

    async def _read(self, view: PoolView, now: datetime) -> tuple[Reading | None, Flag]:
        pods = [pod.name for pod in view.pods if pod.live]
        with_runs = view.policy.latency_slo_seconds is not None
        try:
            reading = await self._signals.read(
                view.cluster_uid, queues=view.queues, pods=pods, now=now, with_runs=with_runs
            )
            await self._take_over(view)
        except Unreadable as error:
            log.warning("pool.unreadable", pool=view.name, deployment=view.deployment, reason=str(error))
            return None, Flag(False, error.reason, str(error))
        return reading, Flag(True, "RedisAnswers", "the queues can be read")

    async def _take_over(self, view: PoolView) -> None:
        """Let those workers go on that an operator before this one was about to take away, and did not."""
        if self._took_over or view.policy.mode is Mode.DRY_RUN:
            return
        if not _settling(view):  # else they are taken away: what keeps them empty stays
            await self._drain.take_back([pod.name for pod in view.pods if pod.live])
            await self._unmark(view, keep=())
        self._took_over = True

    def _decide(self, view: PoolView, demand: Demand, now: datetime) -> Decision:
        history = self._history or History.seeded(view.replicas, now=now)
        if view.policy.mode in {Mode.MANUAL, Mode.EXTERNAL} and not view.overrides.suspend:
            move = f"{view.replicas} -> {view.target}: spec.replicas in mode {view.policy.mode}"
            return Decision(view.target, view.target, Reason.FIXED, move, history, active=False)
        return desired_replicas(view.policy, demand, history, now=now, overrides=view.overrides)

    async def _act(self, view: PoolView, reading: Reading | None, decision: Decision, now: datetime) -> "_Step":
        try:
            if decision.desired < view.replicas:
                step = await self._shrink(view, reading, decision.desired)
            else:
                await self._drain.lower(list(self._drain.tokens))
                step = await self._grow(view, decision.desired)
        except BaseException:
            await self._drain.lower(list(self._drain.tokens))
            raise
        if step.replicas != view.replicas:
            self._history = decision.history.scaled(step.replicas - view.replicas, now=now)
            why = decision.words.partition(": ")[2]
            words = f"{view.replicas} -> {step.replicas}: {why}"
            log.info("pool.scaled", pool=view.name, deployment=view.deployment, words=words)
            return replace(step, events=(words,))
        return step

    async def _grow(self, view: PoolView, desired: int) -> "_Step":
        if desired == view.replicas:
            return _Step(desired)
        try:
            await self._cluster.set_replicas(view.deployment, desired, view.resource_version)
        except Stale:
            return _Step(view.replicas, CONFLICT)
        return _Step(desired)

    async def _shrink(self, view: PoolView, reading: Reading | None, desired: int) -> "_Step":
        """Take as many replicas away as have nothing to do, at most down to `desired`."""
        wait = _must_wait(view)
        if wait is not None or reading is None:
            await self._drain.lower(list(self._drain.tokens))
            return _Step(view.replicas, wait)
        live = [pod for pod in view.pods if pod.live]
        unborn = view.replicas - len(live)
        wanted = view.replicas - desired
        patient = view.overrides.suspend or view.policy.mode in {Mode.MANUAL, Mode.EXTERNAL}
        victims = choose(live, reading.beacons, wanted - unborn, patient=patient, flagged=set(self._drain.tokens))
        await self._drain.lower(set(self._drain.tokens) - {pod.name for pod in victims})
        unready = [pod.name for pod in live if not pod.ready and not pod.empty and pod not in victims]
        if unready:
            await self._drain.lower(list(self._drain.tokens))
            names = ", ".join(unready[:3])
            return _Step(view.replicas, Flag(True, "PodsNotReady", f"these pods would go first: {names}"))
        try:
            leaving = await self._empty(view, victims, patient=patient)
            return await self._take_away(view, leaving, min(wanted, max(unborn, 0) + len(leaving)), wanted)
        except Unreadable as error:
            await self._drain.lower(list(self._drain.tokens))
            return _Step(view.replicas, Flag(True, error.reason, str(error)))

    async def _empty(self, view: PoolView, victims: Sequence[PodView], *, patient: bool) -> list[str]:
        """Phases 1 and 2: return the victims that hold nothing and will take nothing."""
        ttl_s = max(DRAIN_TTL_S, 3 * view.policy.polling_interval_seconds)
        empty = {pod.name for pod in victims if pod.empty}
        names = [pod.name for pod in victims]
        flagged = await self._drain.hold(names, ttl_s=ttl_s)
        obeying = await self._drain.acknowledged(flagged, empty=empty)
        self._held_at = time.monotonic()
        held = await self._drain.hold(obeying, ttl_s=ttl_s)
        leaving = await self._drain.acknowledged(held, empty=empty)
        if not patient:
            await self._drain.lower(set(flagged) - set(leaving))
        return leaving

    async def _take_away(self, view: PoolView, leaving: Sequence[str], count: int, wanted: int) -> "_Step":
        """Phase 3: mark the victims and write the count, or release everything."""
        limited = BUSY if count < wanted else None
        if count == 0:
            return _Step(view.replicas, limited)
        await self._unmark(view, keep=leaving)
        for pod in leaving:
            await self._cluster.set_deletion_cost(pod, DELETION_COST)
        # From here on the count may be written although the answer says otherwise: only Stale lowers these flags.
        tokens = {pod: self._drain.tokens.pop(pod) for pod in leaving}
        try:
            if time.monotonic() - self._held_at > WRITE_WITHIN_S:
                raise Stale("the flags were held too long ago")
            await self._cluster.set_replicas(view.deployment, view.replicas - count, view.resource_version)
        except Stale:
            self._drain.tokens |= tokens
            for pod in leaving:
                await self._cluster.set_deletion_cost(pod, None)
            await self._drain.lower(leaving)
            return _Step(view.replicas, CONFLICT)
        return _Step(view.replicas - count, limited)

    async def _unmark(self, view: PoolView, *, keep: Collection[str]) -> None:
        """Take away the marks of earlier steps that were not finished, by whomever."""
        for pod in view.pods:
            if pod.live and pod.deletion_cost == DELETION_COST and pod.name not in keep:
                await self._cluster.set_deletion_cost(pod.name, None)


@dataclass(frozen=True, slots=True)
class _Step:
    """What a tick did: the count that is written now, and what kept it from more."""

    replicas: int
    limited: Flag | None = None
    events: Sequence[str] = ()


BUSY = Flag(True, "BusyWorkers", "fewer workers are idle than could go; a busy one is never taken away")
CONFLICT = Flag(True, "Conflict", "the Deployment changed since it was read; starting over")
ROLLOUT = Flag(True, "RolloutInProgress", "waiting for the rollout before anything is taken away")
SETTLING = Flag(True, "Settling", "pods of an earlier step are still going")


def _must_wait(view: PoolView) -> Flag | None:
    if view.rollout_in_progress:
        return ROLLOUT
    return SETTLING if _settling(view) else None


def _settling(view: PoolView) -> bool:
    return sum(pod.live for pod in view.pods) > view.replicas


def _demand(view: PoolView, reading: Reading | None, broker: Flag) -> Demand:
    if reading is None:
        return Demand(view.replicas, view.slots, error=broker.message)
    return Demand(
        replicas=view.replicas,
        slots=view.slots,
        waiting=reading.waiting,
        running=sum(beacon.busy for beacon in reading.beacons.values()),
        oldest_s=reading.oldest_s,
        run_s=reading.run_s,
        draining=sum(pod.terminating for pod in view.pods),
        run_id=reading.run_id,
    )


def _report(
    view: PoolView, reading: Reading | None, broker: Flag, demand: Demand, decision: Decision, step: _Step
) -> PoolReport:
    beacons = reading.beacons if reading else {}
    going = sum(pod.terminating for pod in view.pods) + sum(beacon.drain is not None for beacon in beacons.values())
    limited = decision.limited
    return PoolReport(
        decision=decision,
        demand=demand,
        replicas=step.replicas,
        busy=sum(beacon.busy > 0 for beacon in beacons.values()),
        idle=sum(beacon.busy == 0 and beacon.drain is None for beacon in beacons.values()),
        draining=going,
        broker_reachable=broker,
        scaling_active=Flag(decision.active, decision.reason, decision.words),
        scaling_limited=step.limited
        or (Flag(True, limited, decision.words) if limited else Flag(False, "WithinRange", "nothing holds it back")),
        events=step.events,
    )
