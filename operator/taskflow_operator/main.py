"""The operator's process: a Lease, kopf's watches, a loop for each cluster, and a clean end."""

import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar
from uuid import uuid4

import kopf
from kopf._core.engines.peering import Identity
from kubernetes.aio.config import ConfigException

from taskflow_core.logs import configure_logs, get_logger
from taskflow_core.probes import Pulse, serve_probes
from taskflow_core.settings import OperatorSettings, load_or_exit
from taskflow_operator.cluster import KubernetesApi, PoolCluster
from taskflow_operator.lease import Lease, LeaseLost
from taskflow_operator.loops import Loops
from taskflow_operator.reconcile import Reconciler, ScalerMaker
from taskflow_operator.scaler import PoolScaler
from taskflow_operator.secret_reads import SecretReads
from taskflow_operator.store import Place, Store
from taskflow_operator.watches import NoMemories, Watches, kopf_settings, quieten_kopf

LEASE_BOUND_S = 60.0
RECONCILE_BOUND_S = 30.0
STOP_S = 20.0
ACTING = 16  # clusters at a time that are brought about or changed: more would only queue at the API server

T = TypeVar("T")
log = get_logger(__name__)


class Process:
    """One operator: a candidate for the lease, and what it does when it leads.

    The lease lives in `lease_loop`, with an API of that loop's: no look and no queue of requests delays its renewal.
    """

    def __init__(
        self,
        settings: OperatorSettings,
        api: KubernetesApi,
        make_scaler: ScalerMaker,
        *,
        lease_api: KubernetesApi,
        lease_loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.settings = settings
        self.pulse = Pulse(lease=LEASE_BOUND_S, reconcile=RECONCILE_BOUND_S)
        self.stopping = asyncio.Event()
        self.leading = False
        self._make_scaler = make_scaler
        self._lease_loop = lease_loop
        self._store = Store()
        self._acting = asyncio.Semaphore(ACTING)
        self._identity = f"{socket.gethostname()}-{uuid4().hex[:8]}"
        self._lease = Lease(
            lease_api,
            namespace=settings.operator_namespace,
            name=settings.lease_name,
            identity=self._identity,
            pulse=self.pulse,
        )
        self._api = api.fenced(self._lease.is_held)
        self._secrets = SecretReads(self._api)
        self._loops = Loops(self._reconciler, may_write=self._lease.is_held, pulse=self.pulse)

    async def run(self) -> None:
        """Wait for the lease, lead, and give it back; returns once it was told to stop.

        Raises:
            LeaseLost: somebody else may lead now; leave at once.
        """
        watching_over = asyncio.create_task(self._loops.watch_over())
        self.pulse.started()  # one that waits for the lease is ready, too: to take over
        try:
            await self._first(within(self._lease_loop, self._lease.acquire()))
            if not self.stopping.is_set():
                await self._first(within(self._lease_loop, self._lease.keep()), self._lead())
        finally:
            watching_over.cancel()
            await self._loops.stop()
            await within(self._lease_loop, self._lease.release())

    async def _lead(self) -> None:
        namespaces = [name for name in self.settings.watch_namespaces.split(",") if name]
        watches = Watches(self._api, self._store, self._loops, namespaces)
        await watches.first_look()
        self.leading = True
        log.info("operator.leading", namespaces=namespaces or "all")
        flag = asyncio.Event()
        watching = asyncio.create_task(
            kopf.operator(
                registry=watches.registry(),
                settings=kopf_settings(),
                memories=NoMemories(),
                clusterwide=not namespaces,
                namespaces=namespaces,
                stop_flag=flag,
                identity=Identity(self._identity),  # kopf's own names the user, and a pod's has no name
            )
        )
        try:
            await self._first(asyncio.shield(watching), watches.keep_fresh(self.settings.refresh_s))
        finally:
            flag.set()
            await asyncio.wait([watching], timeout=STOP_S)
            watching.cancel()

    async def _first(self, *running: Awaitable[None]) -> None:
        """Run until one ends or the process is told to stop; end the others and raise what was raised."""
        tasks: list[asyncio.Future[Any]] = [asyncio.ensure_future(item) for item in (*running, self.stopping.wait())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()

    def _reconciler(self, place: Place) -> Reconciler | None:
        body = self._store.cluster(place)
        if body is None or body["metadata"].get("deletionTimestamp"):
            return None
        uid = body["metadata"]["uid"]
        return Reconciler(
            self._api, self._store, self._make_scaler, place, uid, secrets=self._secrets, acting=self._acting
        )


def within(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> "asyncio.Future[T]":
    """Have a coroutine run in another loop, or in this one; to cancel the future is to cancel it."""
    return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop))


async def serve(settings: OperatorSettings) -> int:
    """Run an operator until it is told to stop; return its exit status."""
    lease_loop = asyncio.new_event_loop()
    threading.Thread(target=lease_loop.run_forever, name="lease", daemon=True).start()
    try:
        api = await KubernetesApi.connect()
        lease_api = await within(lease_loop, KubernetesApi.connect())
    except ConfigException as error:
        sys.stderr.write(f"taskflow: no Kubernetes cluster: {error}\n  -> run it in a pod, or set KUBECONFIG\n")
        return 2
    process = Process(
        settings,
        api,
        lambda fenced, place, url: PoolScaler(PoolCluster(fenced, place.namespace), url),
        lease_api=lease_api,
        lease_loop=lease_loop,
    )
    serve_probes(settings.probe_port, process.pulse)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, process.stopping.set)
    log.info("operator.started")
    try:
        await process.run()
    except LeaseLost as error:
        log.error("operator.lease_lost", reason=str(error))
        sys.stdout.flush()
        os._exit(1)  # nothing that is still in flight may be waited for: somebody else leads
    finally:
        await within(lease_loop, lease_api.close())
        await api.close()
    log.info("operator.stopped")
    return 0


def main() -> None:
    """Run the operator until SIGTERM or SIGINT."""
    settings = load_or_exit(OperatorSettings)
    configure_logs(level=settings.log_level, style=settings.log_format, service="operator")
    quieten_kopf()
    sys.exit(asyncio.run(serve(settings)))


if __name__ == "__main__":
    main()
