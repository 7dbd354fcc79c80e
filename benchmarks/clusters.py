"""`make bench-operator`: one operator over many TaskFlowClusters; writes benchmarks/OPERATOR.md.

A real API server, etcd and Valkey; the pods exist in the API alone. The world is built once, then a fresh operator
takes it over and is measured: its memory, its looks, what it asks of the API server and of Valkey while nothing
happens, and how soon it answers a burst.
"""

import argparse
import asyncio
import bisect
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

from redis import Redis

from cluster.conftest import OPERATOR
from cluster_stage import DEADLINE_S, Operator, Stage, stage
from taskflow_core.clock import utc_now
from taskflow_core.queue import QUEUE_KEY, job_id

RESULTS = Path(__file__).parent / "OPERATOR.md"
POLL_S = 5.0  # a TaskFlowCluster's default
BURST = 500
SETTLE_S = 45.0  # after the take-over, before the rest is measured
SCALE_TIMEOUT_S = 60.0
MOMENT = "%Y-%m-%dT%H:%M:%S.%fZ"


@dataclass(frozen=True)
class Rest:
    """What an operator did in a while without news: MiB, looks, seconds, requests by verb and kind."""

    seconds: float
    resident_mib: float
    peak_mib: float
    looks: float
    p50_s: float
    p99_s: float
    processor_s: float
    requests: Counter[str]
    ticks: float
    round_trips: float


def main() -> None:
    """Build the world, measure, write OPERATOR.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clusters", type=int, default=500)
    parser.add_argument("--pods", type=int, default=20, help="of each cluster (default 20)")
    parser.add_argument("--seconds", type=float, default=150, help="of rest that are measured (default 150)")
    parser.add_argument("--bursts", type=int, default=24)
    asked = parser.parse_args()
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    with stage(asked.clusters, asked.pods) as world:
        began = time.monotonic()
        with world.operator() as builder:
            loop.run_until_complete(world.announce())
            loop.run_until_complete(world.come_up(builder))
            print(f"built in {time.monotonic() - began:.0f} s, {builder.memory_mib('VmRSS'):.0f} MiB", flush=True)
        with world.operator() as operator:
            began = time.monotonic()
            _until_all_are_led(operator, asked.clusters)
            took = time.monotonic() - began
            time.sleep(SETTLE_S)
            rest = _rest(world, operator, asked.seconds)
            reactions = _bursts(world, asked.bursts)
            end_mib = operator.memory_mib("VmRSS")
    lines = [*_heading(asked.clusters, asked.pods), *_rows(rest, reactions, took, end_mib, asked.clusters)]
    print("\n".join(lines))
    RESULTS.write_text("\n".join(lines) + "\n")


def _until_all_are_led(operator: Operator, clusters: int) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not operator.leads_all(clusters):
        if time.monotonic() > deadline:
            raise TimeoutError("the operator did not take all clusters over")
        time.sleep(0.5)


def _rest(world: Stage, operator: Operator, seconds: float) -> Rest:
    """Watch an operator while nothing happens."""
    began, began_at = time.monotonic(), datetime.now(UTC)
    with world.redis(0) as redis:
        before = (_looks(operator), operator.cpu_s(), _ticks(operator), _reads(redis))
        time.sleep(seconds)
        after = (_looks(operator), operator.cpu_s(), _ticks(operator), _reads(redis))
    buckets = {bound: after[0][bound] - count for bound, count in before[0].items()}
    ended_at = began_at + timedelta(seconds=seconds)
    asked = Counter(
        f"{entry['verb']} {entry['objectRef']['resource']}"
        for entry in world.server.audited(OPERATOR)
        if entry["stage"] == "ResponseComplete" and began_at < _moment(entry["requestReceivedTimestamp"]) < ended_at
    )
    return Rest(
        seconds=time.monotonic() - began,
        resident_mib=operator.memory_mib("VmRSS"),
        peak_mib=operator.memory_mib("VmHWM"),
        looks=max(buckets.values()),
        p50_s=_quantile(buckets, 0.5),
        p99_s=_quantile(buckets, 0.99),
        processor_s=after[1] - before[1],
        requests=asked,
        ticks=after[2] - before[2],
        round_trips=after[3] - before[3] - 1,  # the second question of this measurement
    )


def _looks(operator: Operator) -> dict[float, float]:
    found = operator.metrics("taskflow_operator_reconcile_seconds_bucket")
    return {float(labels.partition('"')[2].rstrip('"')): count for labels, count in found.items()}


def _ticks(operator: Operator) -> float:
    return sum(operator.metrics("taskflow_operator_scaling_decisions_total").values())


def _reads(redis: Redis) -> float:
    """Return how often Valkey read from a client: a pipeline that fits a packet is one read."""
    return float(redis.info("stats")["total_reads_processed"])


def _quantile(buckets: dict[float, float], part: float) -> float:
    """Return the quantile as Prometheus' histogram_quantile does, in seconds."""
    bounds, counts = sorted(buckets), [buckets[bound] for bound in sorted(buckets)]
    rank = part * counts[-1]
    place = bisect.bisect_left(counts, rank)
    low, below = (bounds[place - 1], counts[place - 1]) if place else (0.0, 0.0)
    share = (rank - below) / (counts[place] - below) if counts[place] > below else 1.0
    return low + (bounds[place] - low) * share


def _bursts(world: Stage, count: int) -> list[float]:
    """Enqueue bursts at random moments, each for another cluster; return the seconds until each one's scale patch."""
    chosen = random.sample(range(world.clusters), count)
    sent: dict[str, datetime] = {}
    for number in chosen:
        time.sleep(random.uniform(0.3, 1.5))  # noqa: S311 - moments, no secrets
        now = utc_now()
        with world.redis(number) as redis:
            redis.rpush(QUEUE_KEY + "default", *(job_id(uuid4(), now) for _ in range(BURST)))
        sent[f"{world.names[number]}-worker"] = datetime.now(UTC)
    deadline = time.monotonic() + SCALE_TIMEOUT_S
    while len(patched := _patches(world, sent)) < count and time.monotonic() < deadline:
        time.sleep(1.0)
    if len(patched) < count:
        raise TimeoutError(f"only {len(patched)} of {count} bursts were answered")
    return sorted((patched[name] - moment).total_seconds() for name, moment in sent.items())


def _patches(world: Stage, sent: dict[str, datetime]) -> dict[str, datetime]:
    """Return when the API server received the first scale patch of each Deployment after its burst."""
    found: dict[str, datetime] = {}
    for entry in world.server.audited(OPERATOR):
        what, when = entry["objectRef"], _moment(entry["requestReceivedTimestamp"])
        if entry["verb"] == "patch" and what.get("subresource") == "scale" and when > sent.get(what["name"], when):
            found.setdefault(what["name"], when)
    return found


def _moment(text: str) -> datetime:
    return datetime.strptime(text, MOMENT).replace(tzinfo=UTC)


def _heading(clusters: int, pods: int) -> Iterator[str]:
    yield "# One operator, many clusters"
    yield ""
    yield f"Written by `make bench-operator`: {clusters} TaskFlowClusters with {pods} worker pods each on a real API"
    yield "server and etcd, a database of one Valkey for each cluster, everything on one machine. The pods exist in the"
    yield "API alone; each cluster has a Secret for its Redis and shares those for PostgreSQL and the keys. A fresh"
    yield f"operator takes the finished world over; rest begins {SETTLE_S:.0f} s later. The machine has"
    yield f"{os.cpu_count()} cores and had a load average of {os.getloadavg()[1]:.0f} over the last five minutes."
    yield ""
    yield "| | measured | goal |"
    yield "|---|---|---|"


def _rows(rest: Rest, reactions: list[float], took: float, end_mib: float, clusters: int) -> Iterator[str]:
    minutes = rest.seconds / 60
    requests = sum(rest.requests.values())
    busiest = ", ".join(f"{verb} {count / clusters / minutes:.2f}" for verb, count in rest.requests.most_common(4))
    gap = rest.seconds * clusters / rest.looks
    p50, p95 = _at(reactions, 0.5), _at(reactions, 0.95)
    yield f"| from its start until each pool was looked at | {took:.0f} s | |"
    yield f"| resident memory at rest | {rest.resident_mib:.0f} MiB | < 256 MiB |"
    yield f"| its highest since the start | {rest.peak_mib:.0f} MiB | < 256 MiB |"
    yield f"| after the bursts | {end_mib:.0f} MiB | < 256 MiB |"
    yield f"| a look (all of one cluster), p50 | {1000 * rest.p50_s:.0f} ms | |"
    yield f"| a look, p99 | {1000 * rest.p99_s:.0f} ms | < {POLL_S:.0f} s, the interval |"
    yield f"| from one look at a cluster to the next, mean | {gap:.2f} s | {POLL_S:.0f} s |"
    yield f"| processor | {100 * rest.processor_s / rest.seconds:.0f} % of a core | |"
    yield f"| requests to the API server for a cluster and minute | {requests / clusters / minutes:.2f} ({busiest}) | |"
    yield f"| round trips to Redis for a pool and tick | {rest.round_trips / rest.ticks:.2f} | 1 |"
    yield f"| {BURST} tasks enqueued to the scale patch, p50 of {len(reactions)} bursts | {p50:.1f} s | |"
    yield f"| the same, p95 | {p95:.1f} s | < {POLL_S + 1:.0f} s, poll + 1 s |"
    yield ""
    yield f"Rest: {rest.seconds:.0f} s, {rest.looks:.0f} looks, {requests} requests. Quantiles of looks are"
    yield "interpolated within the buckets of the operator's own histogram; requests are those of the audit log (a"
    yield "watch that stays open does not count); round trips are Valkey's `total_reads_processed`; the moment of a"
    yield "patch is the audit log's."
    yield ""
    yield "KEDA's defaults for the same way, not measured here: it polls every 30 s (KEDA v2.20.0,"
    yield "apis/keda/v1alpha1/withtriggers_types.go, `defaultPollingInterval`), so 0 -> 1 comes up to 30 s after the"
    yield "burst; from 1 on an HPA decides, every 15 s (Kubernetes v1.35.4,"
    yield "pkg/controller/podautoscaler/config/v1alpha1/defaults.go, `HorizontalPodAutoscalerSyncPeriod`), so 1 -> N"
    yield "comes up to 15 s later."


def _at(ordered: list[float], part: float) -> float:
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


if __name__ == "__main__":
    main()
