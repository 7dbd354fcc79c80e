"""The Kubernetes API as the operator uses it: plain JSON over kubernetes.aio, bounded in time, with retries."""

import asyncio
import copy
import os
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import orjson
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from taskflow_core.logs import get_logger
from taskflow_operator.kinds import DEPLOYMENT, POD, Body, Kind
from taskflow_operator.names import DELETION_COST, MANAGER
from taskflow_operator.scaler import Stale

REQUEST_TIMEOUT_S = 10.0
CONNECTIONS = 32
TRIES = 4
MAX_WAIT_S = 5.0
PAGE = 100
AGAIN = frozenset({429, 500, 502, 503, 504})
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"

log = get_logger(__name__)


class ApiFailure(Exception):
    """The API server refused a request, or could not be reached (status 0)."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


class NotLeading(Exception):
    """The lease is over: somebody else may lead, and nothing was written."""


class KubernetesApi:
    """Requests to one API server."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self._may_write: Callable[[], bool] = lambda: True
        self._room = asyncio.Semaphore(CONNECTIONS)  # who waits for a connection has not begun to time out

    @classmethod
    async def connect(cls) -> "KubernetesApi":
        """Return the API of the pod's own cluster, or of the kubeconfig that KUBECONFIG names.

        Raises:
            kubernetes.aio.config.ConfigException: neither is there.
        """
        settings = Configuration()
        if "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ:
            config.load_incluster_config(client_configuration=settings)
        else:
            # kubernetes reads KUBECONFIG when it is imported, which may be too early.
            await config.load_kube_config(os.environ.get("KUBECONFIG"), client_configuration=settings)
        settings.connection_pool_maxsize = CONNECTIONS
        return cls(ApiClient(settings))

    def fenced(self, may_write: Callable[[], bool]) -> "KubernetesApi":
        """Return this API for a leader: `may_write` is asked right before each write, which else raises NotLeading.

        An operator that stood still while its lease ended is in the middle of a look when it wakes.
        """
        made = copy.copy(self)
        made._may_write = may_write
        return made

    async def login(self) -> dict[str, Any]:
        """Return what kopf needs to connect as this client does, the token as it is now."""
        used = self._client.configuration
        header = str((await used.auth_settings()).get("BearerToken", {}).get("value") or "")
        scheme, _, token = header.rpartition(" ")
        return {
            "server": used.host,
            "ca_path": used.ssl_ca_cert,
            "insecure": not used.verify_ssl,
            "username": used.username or None,
            "password": used.password or None,
            "scheme": scheme or None,
            "token": token or None,
            "certificate_path": used.cert_file,
            "private_key_path": used.key_file,
        }

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def get(self, kind: Kind, namespace: str, name: str) -> Body | None:
        """Return an object, or None when there is none of that name."""
        try:
            return await self.request("GET", kind.path(namespace, name))
        except ApiFailure as failure:
            if failure.status == 404:
                return None
            raise

    async def list(self, kind: Kind, namespace: str | None, *, labels: str = "") -> AsyncIterator[Body]:
        """Yield the objects of a kind, no more than a page of them in memory; each says its kind, as single reads do.

        Raises:
            ApiFailure: a page cannot be read.
        """
        query = {"limit": str(PAGE)} | ({"labelSelector": labels} if labels else {})
        while True:
            page = await self.request("GET", kind.path(namespace), query=query)
            for item in page.get("items", []):
                yield {"apiVersion": kind.api_version, "kind": kind.name, **item}
            token = page["metadata"].get("continue")
            if not token:
                return
            query["continue"] = token

    async def create(self, kind: Kind, manifest: Body) -> Body:
        """Make an object; it is an error when there is one already."""
        return await self.request("POST", kind.path(manifest["metadata"]["namespace"]), body=manifest)

    async def apply(self, kind: Kind, manifest: Body, *, sub: str = "") -> Body:
        """Bring an object to what the manifest names (server-side apply); a uid in it must match."""
        metadata = manifest["metadata"]
        return await self.request(
            "PATCH",
            kind.path(metadata["namespace"], metadata["name"], sub),
            body=manifest,
            query={"fieldManager": MANAGER, "force": "true"},
            content_type=APPLY,
        )

    async def merge(self, kind: Kind, namespace: str, name: str, change: Body, *, sub: str = "") -> Body:
        """Change the fields that are named; None takes one away."""
        path = kind.path(namespace, name, sub)
        return await self.request("PATCH", path, body=change, query={"fieldManager": MANAGER}, content_type=MERGE)

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str) -> None:
        """Delete exactly the object with that uid, what it owns in the background; one that is gone is no error."""
        body = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        try:
            await self.request("DELETE", kind.path(namespace, name), body=body)
        except ApiFailure as failure:
            if failure.status not in {404, 409}:
                raise

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, str] | None = None,
        body: Body | None = None,
        content_type: str = "application/json",
    ) -> Body:
        """Send a request and return the answer; an overloaded or unreachable server is asked again.

        Raises:
            ApiFailure: it said no, or did not answer in REQUEST_TIMEOUT_S seconds and TRIES tries.
            NotLeading: it would write, and may no more.
        """
        for attempt in range(1, TRIES + 1):
            try:
                async with self._room:
                    return await self._once(method, path, query, body, content_type)
            except ApiFailure as failure:
                final = attempt == TRIES or failure.status not in AGAIN | {0} or method == "POST"
                if final:
                    raise
                log.warning("kubernetes.retry", method=method, path=path, reason=str(failure), attempt=attempt)
            await asyncio.sleep(min(MAX_WAIT_S, 0.2 * 2**attempt) * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
        raise AssertionError("unreachable")

    async def _once(
        self, method: str, path: str, query: dict[str, str] | None, body: Body | None, content_type: str
    ) -> Body:
        headers = {"Accept": "application/json", "Content-Type": content_type}
        sent = await self._client.param_serialize(
            method,
            path,
            query_params=list((query or {}).items()),
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
        )
        if method != "GET" and not self._may_write():
            raise NotLeading(f"the lease is over: {method} {path} was not sent")
        try:
            answer = await self._client.call_api(*sent, _request_timeout=REQUEST_TIMEOUT_S)
            data: bytes = await answer.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ApiFailure(0, "Unreachable", str(error) or type(error).__name__) from error
        document: Any = _decoded(data)
        if answer.status >= 400:
            said = document if isinstance(document, dict) else {}
            raise ApiFailure(answer.status, said.get("reason", ""), said.get("message", data.decode(errors="replace")))
        return document if isinstance(document, dict) else {}


def _decoded(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None


class PoolCluster:
    """What the scaler of a cluster's pools does to Kubernetes."""

    def __init__(self, api: KubernetesApi, namespace: str) -> None:
        self._api = api
        self._namespace = namespace

    async def set_replicas(self, deployment: str, replicas: int, resource_version: str) -> None:
        """Write the Deployment's `/scale` with the resourceVersion of the read.

        Raises:
            Stale: the Deployment changed since, or is gone.
        """
        change = {"metadata": {"resourceVersion": resource_version}, "spec": {"replicas": replicas}}
        try:
            await self._api.merge(DEPLOYMENT, self._namespace, deployment, change, sub="scale")
        except ApiFailure as failure:
            if failure.status in {404, 409}:
                raise Stale(failure.message) from failure
            raise

    async def set_deletion_cost(self, pod: str, cost: int | None) -> None:
        """Annotate the pod with its `pod-deletion-cost`, None to take that away; a pod that is gone is no error."""
        text = None if cost is None else str(cost)
        try:
            await self._api.merge(POD, self._namespace, pod, {"metadata": {"annotations": {DELETION_COST: text}}})
        except ApiFailure as failure:
            if failure.status != 404:
                raise
