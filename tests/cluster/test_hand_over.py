"""The leader dies, or stands still, between the phases of a scale-in: two operators, real workers, a real Valkey.

The workers are in the test's process and their pods in the API alone. An operator of the test is between the phases for
as long as its victims do not answer: their flags are up, nothing is written yet.
"""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from children import Child
from cluster.admission import admission
from cluster.api_server import ApiServer
from cluster.conftest import NEXT_OPERATOR, OPERATOR
from cluster.crew import Crew, crew_on
from cluster.operators import start_operator
from cluster.steps import until
from cluster.world import Cluster
from pool_stage import until as brought_about
from taskflow_operator.kinds import CLUSTER, DEPLOYMENT, POD
from taskflow_operator.names import DELETION_COST
from waiting import eventually_async

WINDOW_S = 5
MOST = 7  # four more than there are: as far as one step may go
NAMES = ("pod-1", "pod-2", "pod-3")
WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
WORKERS: dict[str, Any] = {
    "queues": ["default"],
    "concurrency": 1,
    "autoscaling": {
        "minReplicas": len(NAMES),
        "maxReplicas": MOST,
        "tasksPerSlot": 1,
        "pollingIntervalSeconds": 1,
        "behavior": {
            "scaleDown": {
                "stabilizationWindowSeconds": WINDOW_S,
                "policies": [{"type": "Pods", "value": 100, "periodSeconds": 1}],
            }
        },
    },
}


class Stage:
    """Two operators over one cluster, the first of which leads, and three workers."""

    def __init__(self, server: ApiServer, cluster: Cluster, crew: Crew, first: Child, second: Child) -> None:
        self.server, self.cluster, self.crew = server, cluster, crew
        self.first, self.second = first, second
        self.stopped = datetime.max.replace(tzinfo=UTC)

    def stop_first(self) -> None:
        """Let the first stand still."""
        self.first.kill(signal.SIGSTOP)
        self.stopped = datetime.now(UTC)

    def pool(self) -> tuple[int, int]:
        """Return generation and replicas of the workers' Deployment; play its controllers."""
        self.cluster.end_jobs()
        self.cluster.get_ready()
        body = self.cluster.get(DEPLOYMENT, "shop-worker") or {"metadata": {"generation": 0}, "spec": {"replicas": 0}}
        return body["metadata"]["generation"], body["spec"]["replicas"]

    def marked(self) -> set[str]:
        """Return the pods that are marked to be deleted first."""
        found = {pod["metadata"]["name"]: pod["metadata"].get("annotations", {}) for pod in self.cluster.all_of(POD)}
        return {name for name, annotations in found.items() if DELETION_COST in annotations}

    async def between_the_phases(self) -> set[str]:
        """Let the load ask for one worker, while nobody answers a bell; return the victims once their flags are up."""
        self.crew.sleep()
        change = {"spec": {"workers": {"autoscaling": {"minReplicas": 1}}}}
        await asyncio.to_thread(self.cluster.patch, CLUSTER, "shop", change)

        async def both_are_flagged() -> set[str] | None:
            flags = await self.crew.flags()
            return flags if len(flags) == len(NAMES) - 1 else None

        victims = await eventually_async(both_are_flagged)
        assert victims is not None
        return victims


@contextmanager
def stopped_at_the_first_mark(stage: Stage) -> Iterator[None]:
    """Stop the first operator while the API server takes in its first change of a pod."""
    with admission(stage.cluster, user=OPERATOR, on_update=stage.stop_first):
        yield


@contextmanager
def two_operators(server: ApiServer, namespace: str, folder: Path) -> Iterator[tuple[Child, Child]]:
    """Run two operators with users of their own; the first leads. Neither outlives the block."""
    first, _ = start_operator(server, namespace, folder, 1)
    started = [first]
    try:
        first.wait_for("operator.leading")
        second, _ = start_operator(server, namespace, folder, 2, user=NEXT_OPERATOR)
        started.append(second)
        yield first, second
    finally:
        for child in started:
            child.kill(signal.SIGCONT)
            child.kill()
            child.process.wait(timeout=10)


@pytest.fixture
async def stage(api_server: ApiServer, cluster: Cluster, redis_url: str, tmp_path: Path) -> AsyncIterator[Stage]:
    url = redis_url.rpartition("/")[0] + "/3"
    cluster.secret("redis", url=url)
    cluster.create(workers=WORKERS)
    with two_operators(api_server, cluster.namespace, tmp_path) as (first, second):
        async with crew_on(url) as crew:
            made = Stage(api_server, cluster, crew, first, second)
            await until(lambda: made.pool()[1] == len(NAMES) and cluster.is_so("Ready", "True"))
            await crew.hire(cluster, NAMES)
            yield made


def moment(child: Child, event: str) -> datetime:
    """Return when a child logged an event first."""
    lines = (json.loads(line) for line in child.log.read_text().splitlines() if f'"event":"{event}"' in line)
    return datetime.fromisoformat(next(lines)["timestamp"])


async def test_7_flags_of_a_leader_killed_between_the_phases_are_taken_back_and_it_is_scaled_in_once(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    crew = stage.crew
    generation, _ = await asyncio.to_thread(stage.pool)
    victims = await stage.between_the_phases()
    stage.first.kill(signal.SIGKILL)
    killed = datetime.now(UTC)
    stage.first.process.wait(timeout=10)
    crew.wake(*victims)
    await brought_about(lambda: all(crew.workers[name].flag.raised for name in victims))
    await crew.push(2)
    await until(lambda: stage.second.said("operator.leading"))
    led = moment(stage.second, "operator.leading")
    await brought_about(lambda: crew.busy() == victims)
    assert await crew.flags() == set()
    back = datetime.now(UTC)
    assert (await asyncio.to_thread(stage.pool), await asyncio.to_thread(stage.marked)) == ((generation, 3), set())
    crew.finish()
    crew.wake()
    await until(lambda: stage.pool()[1] == 1)
    scaled = moment(stage.second, "pool.scaled")
    decided = stage.second.log.read_text().count('"event":"pool.scaled"')
    assert (await asyncio.to_thread(stage.pool))[0] == generation + 1
    assert decided == 1
    assert (scaled - led).total_seconds() >= WINDOW_S
    assert len(await asyncio.to_thread(stage.marked)) == 2
    with capsys.disabled():
        sys.stdout.write(
            f"\nkilled between the phases: the next led {seconds(killed, led)} s later, 2 drained workers took tasks "
            f"{seconds(led, back)} s after that; {decided} scale-in, {seconds(led, scaled)} s after the take-over "
            f"(window {WINDOW_S} s)\n"
        )


async def test_7_a_leader_that_stood_still_before_its_last_write_writes_nothing_when_it_wakes(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    """It stops while it marks its victims. Its successor changes nothing that would make its write a conflict."""
    crew = stage.crew
    generation, _ = await asyncio.to_thread(stage.pool)
    with stopped_at_the_first_mark(stage):
        await stage.between_the_phases()
        crew.wake()
        await until(stage.marked)
    await crew.push(len(NAMES))
    await until(lambda: stage.second.said("operator.leading"))
    await brought_about(lambda: crew.busy() == set(NAMES))
    await until(lambda: not stage.marked())
    stage.first.kill(signal.SIGCONT)
    woken = datetime.now(UTC)
    assert await asyncio.to_thread(stage.first.process.wait, 30) == 1, stage.first.log.read_text()
    left = datetime.now(UTC)
    written = [entry["requestURI"] for entry in stage.server.audited(OPERATOR) if _wrote(entry, woken)]
    assert written == []
    assert await asyncio.to_thread(stage.pool) == (generation, len(NAMES))
    assert await asyncio.to_thread(stage.marked) == set()
    assert await crew.flags() == set()
    await crew.push(20)
    await until(lambda: stage.pool()[1] == MOST)
    assert await asyncio.to_thread(stage.pool) == (generation + 1, MOST)
    with capsys.disabled():
        sys.stdout.write(
            f"\nstopped before its last write, woken {seconds(stage.stopped, woken)} s later beside its successor: "
            f"{len(written)} writes, left {seconds(woken, left)} s after that; 3 of 3 busy kept, 1 scale-out later\n"
        )


def seconds(since: datetime, until: datetime) -> str:
    return f"{(until - since).total_seconds():.1f}"


def _wrote(entry: dict[str, Any], since: datetime) -> bool:
    return entry["verb"] in WRITES and datetime.fromisoformat(entry["requestReceivedTimestamp"]) > since
