"""Leadership by a coordination.k8s.io Lease, with the times of client-go.

A holder that was not seen to renew for DURATION_S seconds, by our own monotonic clock, may be replaced; one that could
not renew for RENEW_DEADLINE_S gives up before anybody may take over.
"""

import asyncio
import random
import time

from taskflow_core.clock import utc_now
from taskflow_core.logs import get_logger
from taskflow_core.probes import Pulse
from taskflow_operator.cluster import ApiFailure, KubernetesApi
from taskflow_operator.kinds import LEASE, Body
from taskflow_operator.metrics import LEADER

DURATION_S = 15.0
RENEW_DEADLINE_S = 10.0
RETRY_S = 2.0

log = get_logger(__name__)


class LeaseLost(Exception):
    """The lease could not be renewed in time, or somebody else holds it."""


class Lease:
    """One candidate for leadership; `identity` is unique to the process."""

    def __init__(self, api: KubernetesApi, *, namespace: str, name: str, identity: str, pulse: Pulse) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._pulse = pulse
        self._renewed_at = float("-inf")
        self._seen: tuple[str, float] = ("", 0.0)
        self._body: Body | None = None

    def is_held(self) -> bool:
        """Whether nobody else can have taken over yet."""
        return time.monotonic() - self._renewed_at < DURATION_S

    async def acquire(self) -> None:
        """Wait, for ever, until the lease is ours."""
        while not await self._try():
            self._pulse.beat("lease")
            await asyncio.sleep(RETRY_S * random.uniform(0.8, 1.2))  # noqa: S311 - jitter
        LEADER.set(1)
        log.info("lease.acquired", lease=self._name, identity=self._identity)

    async def keep(self) -> None:
        """Renew the lease until that fails.

        Raises:
            LeaseLost: the process must do nothing more.
        """
        while True:
            await asyncio.sleep(RETRY_S)
            renewed = self.is_held() and await self._try()  # one that stood still for so long asks nobody first
            if renewed:
                self._pulse.beat("lease")
            elif time.monotonic() - self._renewed_at > RENEW_DEADLINE_S or self._is_anothers():
                LEADER.set(0)
                raise LeaseLost(f"lease {self._name} was not renewed")

    async def release(self) -> None:
        """Give the lease back, so that the next one need not wait; without an answer it expires by itself."""
        if not self.is_held() or self._body is None:
            return
        self._renewed_at = float("-inf")
        try:
            async with asyncio.timeout(RETRY_S):
                await self._write(self._body, {"holderIdentity": "", "leaseDurationSeconds": 1})
        except (ApiFailure, TimeoutError) as error:
            log.warning("lease.release_failed", reason=str(error))

    async def _try(self) -> bool:
        asked_at = time.monotonic()
        try:
            async with asyncio.timeout(RENEW_DEADLINE_S / 2):
                held = await self._take()
        except (ApiFailure, TimeoutError) as error:
            log.warning("lease.failed", lease=self._name, reason=str(error) or "no answer")
            return False
        if held:
            self._renewed_at = asked_at
        return held

    async def _take(self) -> bool:
        found = self._body = await self._api.get(LEASE, self._namespace, self._name)
        if found is None:
            metadata = {"name": self._name, "namespace": self._namespace}
            manifest = {"apiVersion": LEASE.api_version, "kind": LEASE.name, "metadata": metadata}
            self._body = await self._api.create(LEASE, manifest | {"spec": self._claim(transitions=0)})
            return True
        spec = found.get("spec", {})
        if spec.get("holderIdentity") == self._identity:
            await self._write(found, {"renewTime": _micro_time()})
            return True
        if spec.get("holderIdentity") and not self._has_expired(found):
            return False
        await self._write(found, self._claim(transitions=spec.get("leaseTransitions", 0) + 1))
        return True

    def _has_expired(self, body: Body) -> bool:
        """Whether the holder's last renewal was seen long ago; clocks of other machines are not believed."""
        version, now = body["metadata"]["resourceVersion"], time.monotonic()
        if self._seen[0] != version:
            self._seen = (version, now)
        duration = float(body["spec"].get("leaseDurationSeconds") or DURATION_S)
        return now - self._seen[1] > duration

    def _is_anothers(self) -> bool:
        holder = (self._body or {}).get("spec", {}).get("holderIdentity")
        return bool(holder) and holder != self._identity

    def _claim(self, *, transitions: int) -> Body:
        now = _micro_time()
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(DURATION_S),
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": transitions,
        }

    async def _write(self, read: Body, spec: Body) -> None:
        """Change the Lease as it was read; anybody who came in between makes that fail (409)."""
        change = {"metadata": {"resourceVersion": read["metadata"]["resourceVersion"]}, "spec": spec}
        self._body = await self._api.merge(LEASE, self._namespace, self._name, change)


def _micro_time() -> str:
    return utc_now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
