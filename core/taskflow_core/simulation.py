"""A pool under a load on a simulated clock: the scaling function beside models of KEDA and of a plain HPA.

The model steps second by second. A pod takes its time to start; a free slot takes the oldest waiting task. TaskFlow
drains idle pods, those that were idle longest first: they take no more, and a second later the ReplicaSet deletes as
many pods, drained ones first. For the others it deletes the youngest pod first, whatever it runs: its tasks wait again
and start anew. All three aim at the same number of waiting tasks a pod, slots * tasksPerSlot.
"""

import heapq
import math
import operator
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

from taskflow_core.scaling import Demand, History, desired_replicas
from taskflow_core.scaling_policy import UP, Behavior, RatePolicy, ScalingPolicy, ScalingRules
from taskflow_core.scaling_rates import Recommendation, ScaleEvent, limit_rate, remember, stabilise

START = datetime(2026, 1, 1, tzinfo=UTC)
LIMIT_S = 4 * 3600  # after the last task came; a pool that kills long tasks again and again never ends them
TAIL_S = 900  # after the last task, so that the way down is seen and paid for
# github.com/kedacore/keda/v2 v2.20.0, apis/keda/v1alpha1/withtriggers_types.go: defaultPollingInterval, and
# pkg/scaling/executor/scale_executor.go: defaultCooldownPeriod
KEDA_POLL_S, KEDA_COOLDOWN_S = 30, 300
# k8s.io/kubernetes v1.35.4, pkg/controller/podautoscaler/config/v1alpha1/defaults.go:
# HorizontalPodAutoscalerSyncPeriod, -Tolerance, -DownscaleStabilizationWindow
HPA_SYNC_S, HPA_TOLERANCE, HPA_WINDOW_S = 15, 0.1, 300.0
# The same, pkg/apis/autoscaling/v2/defaults.go: defaultHPAScaleDownRules; UP is its defaultHPAScaleUpRules.
AT_ONCE = ScalingRules(
    stabilization_window_seconds=300, policies=(RatePolicy(type="Percent", value=100, period_seconds=15),)
)
HPA_DEFAULTS = Behavior(scale_up=UP, scale_down=AT_ONCE)


@dataclass(frozen=True, slots=True, order=True)
class Arrival:
    """A task: when it comes and how long it runs, in seconds."""

    at_s: float
    run_s: float


@dataclass(frozen=True, slots=True)
class Seen:
    """What a scaler sees at a moment; times in seconds."""

    now_s: int
    replicas: int
    slots: int
    waiting: int
    running: int
    oldest_s: float
    run_s: float | None


@dataclass(frozen=True, slots=True)
class Point:
    """The pool at a moment."""

    now_s: int
    waiting: int
    oldest_s: float
    replicas: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run cost: waits and pod-hours; `killed` counts tasks lost to a pod that was taken away while busy."""

    name: str
    tasks: int
    wait_p50_s: float
    wait_p95_s: float
    pod_hours: float
    killed: int
    unfinished: int
    changes: int
    points: Sequence[Point]


class Scaler(Protocol):
    """Decides a replica count. `drains`: whether pods are drained before they are taken away."""

    name: str
    drains: bool

    def decide(self, seen: Seen) -> int:
        """Return the replicas wanted now; called every second."""


class TaskFlow:
    """The scaling function itself, with its policy."""

    name, drains = "taskflow", True

    def __init__(self, policy: ScalingPolicy) -> None:
        self._policy = policy
        self._history = History.seeded(policy.min_replicas, now=START)
        self._replicas = policy.min_replicas

    def decide(self, seen: Seen) -> int:
        """Return what the operator would decide."""
        now = START + timedelta(seconds=seen.now_s)
        if seen.replicas != self._replicas:
            self._history = self._history.scaled(seen.replicas - self._replicas, now=now)
            self._replicas = seen.replicas
        if seen.now_s % self._policy.polling_interval_seconds:
            return seen.replicas
        demand = Demand(seen.replicas, seen.slots, seen.waiting, seen.running, seen.oldest_s, seen.run_s)
        decision = desired_replicas(self._policy, demand, self._history, now=now)
        self._history = decision.history
        return decision.desired


class Hpa:
    """An HPA with its defaults on the number of waiting tasks; it never goes below one."""

    name, drains = "hpa", False

    def __init__(self, policy: ScalingPolicy) -> None:
        self._policy = policy
        self._highs: tuple[Recommendation, ...] = ()
        self._events: list[ScaleEvent] = []

    def decide(self, seen: Seen) -> int:
        """Return ceil(waiting / target), within tolerance, window and rates."""
        if seen.now_s % HPA_SYNC_S:
            return seen.replicas
        now = START + timedelta(seconds=seen.now_s)
        target = self._policy.tasks_per_slot * seen.slots
        ratio = seen.waiting / (target * max(seen.replicas, 1))
        wanted = seen.replicas if abs(ratio - 1) <= HPA_TOLERANCE else math.ceil(seen.waiting / target)
        wanted = min(max(wanted, 1, self._policy.min_replicas), self._policy.max_replicas)
        self._highs = remember(self._highs, Recommendation(now, wanted), window_s=HPA_WINDOW_S, outlives=operator.ge)
        stable = stabilise(seen.replicas, wanted, highs=self._highs, lows=())
        allowed = limit_rate(seen.replicas, stable, behavior=HPA_DEFAULTS, events=self._events, now=now)
        if allowed != seen.replicas:
            self._events = [*self._events[-50:], ScaleEvent(now, allowed - seen.replicas)]
        return allowed


class Keda:
    """KEDA's redis-list scaler with its defaults: it wakes the first replica, an HPA makes the others."""

    name, drains = "keda", False

    def __init__(self, policy: ScalingPolicy) -> None:
        self._policy = policy
        self._hpa = Hpa(policy)
        self._active_s = 0

    def decide(self, seen: Seen) -> int:
        """Return 0 after the cooldown without waiting tasks, whatever still runs, if the minimum is 0."""
        if seen.now_s % KEDA_POLL_S == 0:
            if seen.waiting > 0:
                self._active_s = seen.now_s
                if seen.replicas == 0:
                    return 1
            elif self._policy.min_replicas == 0 and seen.now_s - self._active_s >= KEDA_COOLDOWN_S:
                return 0
        return self._hpa.decide(seen) if seen.replicas > 0 else 0


SCALERS: dict[str, Callable[[ScalingPolicy], Scaler]] = {"taskflow": TaskFlow, "keda": Keda, "hpa": Hpa}


@dataclass(slots=True, eq=False)
class _Pod:
    ready_s: float
    idle_since_s: float
    turn: int = 0
    drained: bool = False
    tasks: list[tuple[float, Arrival]] = field(default_factory=list)  # with their ends

    def running(self, at_s: float) -> int:
        return sum(end_s > at_s for end_s, _ in self.tasks)


class _Pool:
    """The pods and the queue. Scalers look in the middle of a second."""

    def __init__(self, slots: int, start_s: float) -> None:
        self.slots, self.start_s = slots, start_s
        self.pods: list[_Pod] = []
        self.waiting: deque[Arrival] = deque()
        self.waits: list[float] = []
        self.runs: deque[float] = deque(maxlen=500)
        self.killed = 0
        self._turns = 0

    def step(self, now_s: int) -> None:
        """Play a second: end what is over, start what can start, take away what was drained before it."""
        for pod in self.pods:
            while pod.tasks and pod.tasks[0][0] <= now_s:
                self._end_first(pod)
        ready = (pod for pod in self.pods if pod.ready_s <= now_s)
        takers = deque(sorted(ready, key=lambda pod: pod.turn))  # who has waited for a task longest gets the next
        while self.waiting and takers:
            pod = takers.popleft()
            at_s = self._free_at(pod, now_s)
            if at_s is not None:
                task = self.waiting.popleft()
                self.waits.append(at_s - task.at_s)
                heapq.heappush(pod.tasks, (at_s + task.run_s, task))
                self._turns += 1
                pod.turn = self._turns
                takers.append(pod)
        self._delete(sum(pod.drained for pod in self.pods), now_s)

    def _free_at(self, pod: _Pod, now_s: int) -> float | None:
        """Return when within this second the pod takes a task: now, or when its first slot gets free."""
        if pod.drained:
            return None
        if len(pod.tasks) < self.slots:
            return now_s
        return self._end_first(pod) if pod.tasks[0][0] < now_s + 1 else None

    def _end_first(self, pod: _Pod) -> float:
        end_s, task = heapq.heappop(pod.tasks)
        self.runs.append(task.run_s)
        pod.idle_since_s = end_s
        return end_s

    def resize(self, wanted: int, now_s: int, *, drains: bool) -> None:
        """Start pods, or drain as many idle ones as there are too many, or delete as many whatever they run."""
        while len(self.pods) < wanted:
            self.pods.append(_Pod(now_s + self.start_s, now_s))
        surplus = len(self.pods) - wanted
        if not drains:
            self._delete(surplus, now_s + 0.5)
            return
        idle = sorted((pod for pod in self.pods if not pod.running(now_s + 0.5)), key=lambda pod: pod.idle_since_s)
        for pod in idle[:surplus]:
            pod.drained = True

    def _delete(self, count: int, at_s: float) -> None:
        """Delete so many as their ReplicaSet would: drained ones first, they are marked, then the youngest."""
        order = [pod for pod in self.pods if pod.drained] + [pod for pod in reversed(self.pods) if not pod.drained]
        for pod in order[:count]:
            self.pods.remove(pod)
            self.killed += pod.running(at_s)
            self.waiting.extendleft(task for end_s, task in pod.tasks if end_s > at_s)

    def seen(self, now_s: int) -> Seen:
        """Return what a scaler sees."""
        runs = sorted(self.runs)
        median = runs[len(runs) // 2] if len(runs) >= 20 else None
        oldest_s = now_s - self.waiting[0].at_s if self.waiting else 0.0
        running = sum(pod.running(now_s + 0.5) for pod in self.pods)
        return Seen(now_s, len(self.pods), self.slots, len(self.waiting), running, oldest_s, median)


def simulate(
    scaler: Scaler, arrivals: Sequence[Arrival], *, policy: ScalingPolicy, slots: int, start_s: float
) -> Outcome:
    """Run the load through a pool that the scaler sizes; `slots` are those of a pod, which takes `start_s` to start."""
    pool = _Pool(slots, start_s)
    pool.resize(policy.min_replicas, -math.ceil(start_s), drains=True)
    coming = deque(sorted(arrivals))
    points: list[Point] = []
    pod_seconds = changes = over_s = 0
    seen = pool.seen(0)
    for now_s in range(math.ceil(coming[-1].at_s if coming else 0) + LIMIT_S):
        while coming and coming[0].at_s <= now_s:
            pool.waiting.append(coming.popleft())
        pool.step(now_s)
        seen, before = pool.seen(now_s), seen
        changes += seen.replicas != before.replicas
        points.append(Point(now_s, seen.waiting, seen.oldest_s, seen.replicas))
        pod_seconds += seen.replicas
        over_s = 0 if coming or seen.waiting or seen.running else over_s + 1
        if over_s > TAIL_S:
            break
        pool.resize(scaler.decide(seen), now_s, drains=scaler.drains)
    waits = sorted(pool.waits)
    p50, p95 = (_quantile(waits, share) for share in (0.5, 0.95))
    return Outcome(
        scaler.name,
        tasks=len(arrivals),
        wait_p50_s=p50,
        wait_p95_s=p95,
        pod_hours=pod_seconds / 3600,
        killed=pool.killed,
        unfinished=seen.waiting + seen.running,
        changes=changes,
        points=points,
    )


def _quantile(values: Sequence[float], share: float) -> float:
    return values[min(len(values) - 1, int(share * len(values)))] if values else 0.0


SHAPES = ("burst", "wave", "steady", "bimodal", "long")


def synthetic(shape: str, *, seed: int = 0, span_s: int = 3600) -> list[Arrival]:
    """Return a load of that shape: tasks of 1 s in bursts, waves or steadily, short and long mixed, or 20 min each.

    Raises:
        KeyError: there is no such shape.
    """
    chance = random.Random(seed)  # noqa: S311 - a load, no secret

    def spread(rate: Callable[[int], float], run_s: Callable[[], float]) -> list[Arrival]:
        return [
            Arrival(second + chance.random(), run_s())
            for second in range(span_s)
            for _ in range(int(rate(second)) + (chance.random() < rate(second) % 1))
        ]

    makers: dict[str, Callable[[], list[Arrival]]] = {
        "burst": lambda: spread(lambda second: 300.0 if second % 900 == 60 else 0.0, lambda: 1.0),
        "wave": lambda: spread(lambda second: 20.0 if second % 300 < 150 else 0.0, lambda: 1.0),
        "steady": lambda: spread(lambda _: 10.0, lambda: chance.uniform(0.5, 1.5)),
        "bimodal": lambda: spread(lambda _: 0.5, lambda: 300.0 if chance.random() < 0.05 else 0.1),
        "long": lambda: [Arrival(60.0 + number, 1200.0) for number in range(12)],
    }
    return makers[shape]()
