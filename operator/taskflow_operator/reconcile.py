"""One look at one cluster after the other: see, plan, act, scale, tell. Everything remembered here may be lost."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from pydantic import SecretStr, ValidationError

from taskflow_core.clock import utc_now
from taskflow_core.logs import get_logger
from taskflow_core.scaling import Overrides
from taskflow_core.scaling_policy import Mode, ScalingPolicy
from taskflow_operator import metrics
from taskflow_operator.actions import Actor, Memory
from taskflow_operator.cluster import ApiFailure, KubernetesApi
from taskflow_operator.conditions import invalid_status, status_of
from taskflow_operator.credentials import CredentialReader, Credentials
from taskflow_operator.kinds import CLUSTER, DEPLOYMENT, POD, Body
from taskflow_operator.names import DELETION_COST, POOL_LABEL, worker_name
from taskflow_operator.news import news
from taskflow_operator.observed import Key, Observed, replicas, rolling_out
from taskflow_operator.plan import Plan, has_to_drain, plan
from taskflow_operator.scaler import PoolReport, PoolView
from taskflow_operator.secret_reads import SecretReads
from taskflow_operator.spec import Pool, Spec
from taskflow_operator.status import Status
from taskflow_operator.store import Place, Store
from taskflow_operator.victims import PodView

WRONG_SPEC_S = 30.0
REPLAN_S = 60.0
REMOVED = Pool(replicas=0, autoscaling=ScalingPolicy(mode=Mode.MANUAL))  # what drains a pool that was taken away
OVERRIDES = {
    "pause_in": "taskflow.io/pause-scale-in",
    "pause_out": "taskflow.io/pause-scale-out",
    "force_active": "taskflow.io/force-active",
}

log = get_logger(__name__)


class Gone(Exception):
    """The cluster does not exist any more, or is another one of the same name."""


class Scaler(Protocol):
    """Brings one pool to its size, a step at a time."""

    async def tick(self, view: PoolView, now: datetime) -> PoolReport:
        """Read, decide, act; report what was seen and done."""

    async def close(self) -> None:
        """Close the connections."""


ScalerMaker = Callable[[KubernetesApi, Place, SecretStr], Scaler]


class Reconciler:
    """Looks after one cluster, known by its uid."""

    def __init__(
        self,
        api: KubernetesApi,
        store: Store,
        make_scaler: ScalerMaker,
        place: Place,
        uid: str,
        *,
        secrets: SecretReads,
        acting: asyncio.Semaphore,
    ) -> None:
        self._api = api
        self._store = store
        self._make_scaler = make_scaler
        self.place = place
        self.uid = uid
        self._acting = acting
        self._memory = Memory()
        self._actor = Actor(api, store, place, self._memory)
        self._reader = CredentialReader(secrets, place.namespace, uid)
        self._scalers: dict[str, Scaler] = {}
        self._redis_url: SecretStr | None = None
        self._reports: dict[str, PoolReport] = {}
        self._next_tick: dict[str, float] = {}
        self._at_rest: tuple[tuple[object, ...], Plan, float] | None = None

    async def reconcile(self) -> float:
        """Bring the cluster one step on and return after how many seconds to look again.

        Raises:
            Gone: there is nothing to look after any more.
            ApiFailure: the API server cannot be asked.
        """
        body = self._body()
        before = Status.model_validate(body.get("status", {}), extra="ignore")
        now = utc_now()
        try:
            spec = Spec.model_validate(body["spec"], extra="ignore")
        except ValidationError as error:
            await self._write(body, before, invalid_status(before, body["metadata"], error, now=now))
            return WRONG_SPEC_S
        credentials = await self._reader.read(spec, generation=body["metadata"]["generation"])
        observed = self._look(body, credentials)
        made = self._plan(observed, spec, credentials, now)
        act = bool(made.actions) and not self._acting.locked()  # else when fewer others act: at the next look
        if act:
            async with self._acting:
                await self._confirm(body)
                await self._actor.perform(made.actions)
            observed = self._look(body, credentials)
        views = self._views(observed, spec)
        del observed  # not kept while Redis is asked: hundreds of looks may be under way
        messages = await self._scale(views, credentials)
        observed = self._look(body, credentials)
        status = status_of(observed, spec, before, made, self._reports, now=now)
        await self._write(body, before, status, messages)
        soonest = min(pool.autoscaling.polling_interval_seconds for pool in spec.pools().values())
        return min(soonest, 1.0) if act else soonest

    def _plan(self, observed: Observed, spec: Spec, credentials: Credentials, now: datetime) -> Plan:
        """Plan; one that found nothing to do holds for REPLAN_S seconds, while nothing changes that it was made of.

        Most looks are for the queues alone, and planning would take half of their time.
        """
        metadata = observed.metadata
        made_of = (
            self._store.shelf(self.place).version,
            metadata["generation"],
            metadata.get("annotations"),
            credentials,
            observed.taken,
            dict(observed.refused),
        )
        if self._at_rest is not None and self._at_rest[0] == made_of and time.monotonic() < self._at_rest[2]:
            return self._at_rest[1]
        made = plan(observed, spec, now)
        self._at_rest = None if made.actions else (made_of, made, time.monotonic() + REPLAN_S)
        return made

    async def close(self) -> None:
        """Forget the cluster."""
        await self._drop_scalers()
        metrics.forget_cluster(self.place, list(self._reports))

    def _body(self) -> Body:
        body = self._store.cluster(self.place)
        if body is None or body["metadata"]["uid"] != self.uid or body["metadata"].get("deletionTimestamp"):
            raise Gone
        return body

    async def _confirm(self, body: Body) -> None:
        """Ask whether the cluster is still what the watch told, before anything is changed."""
        found = await self._api.get(CLUSTER, *self.place)
        if found is None:
            self._store.drop(body)
            raise Gone
        self._store.put(found)
        self._body()

    def _look(self, body: Body, credentials: Credentials) -> Observed:
        children, pods = {}, []
        for key, found in self._store.shelf(self.place).bodies():
            if key.kind == POD.name:
                pods.append(found)
            else:
                children[key] = found
        return Observed(
            metadata=body["metadata"],
            children=children,
            pods=pods,
            hashes=credentials.hashes,
            missing=credentials.missing,
            settled=self._memory.settled,
            taken=frozenset(self._memory.current_taken()),
            refused=self._memory.current_refusals(),
        )

    def _views(self, observed: Observed, spec: Spec) -> dict[str, PoolView]:
        """Return the pools that are due for a step, as their scalers see them; forget those that are no more."""
        pools = spec.pools() | dict.fromkeys(_removed_pools(observed, spec), REMOVED)
        for name in self._reports.keys() - pools.keys():
            del self._reports[name]
            metrics.forget(self.place, [name])
        if spec.paused or observed.paused:
            return {}
        due = [name for name in pools if time.monotonic() >= self._next_tick.get(name, 0.0)]
        views = {name: pool_view(observed, spec, name, pools[name]) for name in due}
        return {name: view for name, view in views.items() if view is not None}

    async def _scale(self, views: Mapping[str, PoolView], credentials: Credentials) -> dict[str, Sequence[str]]:
        """Let every pool take a step; one pool's failure is not another's."""
        await self._renew_scalers(credentials.redis_url)
        said: dict[str, Sequence[str]] = {}
        if credentials.redis_url is None:
            return said
        for name, view in views.items():
            self._next_tick[name] = time.monotonic() + view.policy.polling_interval_seconds * 0.9
            scaler = self._scalers.get(name)
            if scaler is None:
                scaler = self._scalers[name] = self._make_scaler(self._api, self.place, credentials.redis_url)
            try:
                report = await scaler.tick(view, utc_now())
            except Exception as error:  # noqa: BLE001 - one pool must not keep the others, or the status, from going on
                metrics.ERRORS.labels("scaling").inc()
                log.warning("scaling.failed", namespace=self.place.namespace, pool=view.deployment, reason=str(error))
                continue
            self._reports[name] = report
            metrics.count_report(self.place, name, report)
            said[name] = report.events
        return said

    async def _renew_scalers(self, redis_url: SecretStr | None) -> None:
        if redis_url != self._redis_url:
            await self._drop_scalers()
            self._redis_url = redis_url

    async def _drop_scalers(self) -> None:
        for scaler in self._scalers.values():
            await scaler.close()
        self._scalers = {}

    async def _write(
        self, body: Body, before: Status, status: Status, messages: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        """Write the status if it changed, and tell what changed in events."""
        metrics.tell_conditions(self.place, status)
        if status != before:
            manifest = {
                "apiVersion": CLUSTER.api_version,
                "kind": CLUSTER.name,
                "metadata": {"name": self.place.name, "namespace": self.place.namespace, "uid": self.uid},
                "status": status.model_dump(mode="json", by_alias=True, exclude_none=True),
            }
            try:
                self._store.put(await self._api.apply(CLUSTER, manifest, sub="status"))
            except ApiFailure as failure:
                if failure.status not in {404, 409}:
                    raise
                await self._confirm(body)  # gone, or made again under the same name
                return
            metrics.WRITES.labels("status").inc()
        for event in news(body, before, status, messages or {}):
            await self._actor.tell(event)


def _removed_pools(observed: Observed, spec: Spec) -> set[str]:
    """Return the pools that the spec no longer has and whose workers have to drain."""
    at_work = [body for body in observed.children.values() if observed.owner(body) == "ours" and has_to_drain(body)]
    return {body["metadata"]["labels"].get(POOL_LABEL, "") for body in at_work} - spec.pools().keys()


def pool_view(observed: Observed, spec: Spec, name: str, pool: Pool) -> PoolView | None:
    """Return what the scaler sees of a pool, or None while it has no Deployment of ours."""
    deployment = worker_name(observed.metadata["name"], name)
    body = observed.children.get(Key(DEPLOYMENT.name, deployment))
    if body is None or observed.owner(body) != "ours":
        return None
    annotations = observed.metadata.get("annotations", {})
    asked = {field: annotations.get(key, "").lower() == "true" for field, key in OVERRIDES.items()}
    return PoolView(
        cluster_uid=observed.uid,
        name=name,
        deployment=deployment,
        replicas=replicas(body),
        resource_version=body["metadata"]["resourceVersion"],
        pods=[_pod_view(pod) for pod in observed.pods if pod["metadata"].get("labels", {}).get(POOL_LABEL) == name],
        rollout_in_progress=rolling_out(body),
        policy=pool.autoscaling,
        slots=pool.concurrency,
        queues=pool.queues,
        target=pool.replicas,
        overrides=Overrides(**asked, suspend=spec.suspend),
    )


def _pod_view(pod: Body) -> PodView:
    metadata, status = pod["metadata"], pod.get("status", {})
    containers = status.get("containerStatuses", [])
    cost = str(metadata.get("annotations", {}).get(DELETION_COST, ""))
    return PodView(
        name=metadata["name"],
        phase=status.get("phase", "Pending"),
        ready=any(item["type"] == "Ready" and item["status"] == "True" for item in status.get("conditions", [])),
        terminating="deletionTimestamp" in metadata,
        created_at=datetime.fromisoformat(metadata["creationTimestamp"]),
        crashed=bool(containers) and not any("running" in item.get("state", {}) for item in containers),
        deletion_cost=int(cost) if cost.removeprefix("-").isdecimal() else None,
    )
