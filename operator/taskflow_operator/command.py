"""What `taskflow cluster` does: reads and pauses clusters through the user's own kubeconfig."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from kubernetes.aio import config

from taskflow_core.errors import Forbidden, NotFound, TaskFlowError, Unavailable
from taskflow_operator.cluster import ApiFailure, KubernetesApi
from taskflow_operator.kinds import CLUSTER, Body
from taskflow_operator.names import PAUSED_ANNOTATION

T = TypeVar("T")
TIMEOUT_S = 30.0


def read(name: str, namespace: str | None) -> Body:
    """Return a cluster as it is now; no namespace means the kubeconfig's.

    Raises:
        NotFound: there is none of that name.
        Forbidden: the user may not.
        Unavailable: no API server answers, or the kubeconfig names none.
    """

    async def work(api: KubernetesApi) -> Body:
        place = namespace or _default_namespace()
        found = await api.get(CLUSTER, place, name)
        if found is None:
            raise NotFound(f"there is no TaskFlowCluster {name} in the namespace {place}")
        return found

    return _run(work)


def set_paused(name: str, namespace: str | None, *, paused: bool) -> Body:
    """Ask the operator to leave a cluster alone, or to look after it again; return the cluster.

    Raises:
        NotFound, Forbidden, Unavailable: as `read` does.
    """

    async def work(api: KubernetesApi) -> Body:
        change = {"metadata": {"annotations": {PAUSED_ANNOTATION: "true" if paused else None}}}
        return await api.merge(CLUSTER, namespace or _default_namespace(), name, change)

    return _run(work)


def _default_namespace() -> str:
    _, active = config.list_kube_config_contexts()
    return str(active["context"].get("namespace") or "default")


def _run(work: Callable[[KubernetesApi], Awaitable[T]]) -> T:
    async def connected() -> T:
        async with asyncio.timeout(TIMEOUT_S):
            api = await KubernetesApi.connect()
            try:
                return await work(api)
            finally:
                await api.close()

    try:
        return asyncio.run(connected())
    except ApiFailure as failure:
        raise _error(failure) from failure
    except (config.ConfigException, TimeoutError) as error:
        raise Unavailable(f"no Kubernetes cluster: {error or 'no answer'}") from error


def _error(failure: ApiFailure) -> TaskFlowError:
    kinds: dict[int, type[NotFound | Forbidden]] = {401: Forbidden, 403: Forbidden, 404: NotFound}
    kind = kinds.get(failure.status)
    return kind(failure.message) if kind else Unavailable(str(failure))
