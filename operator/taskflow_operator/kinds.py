"""The kinds of objects that the operator works with, and where the API server keeps them."""

from typing import Any, NamedTuple

from taskflow_operator.crd import API_VERSION, KIND, PLURAL

Body = dict[str, Any]


class Kind(NamedTuple):
    """A kind of namespaced object."""

    api_version: str
    plural: str
    name: str

    @property
    def group(self) -> str:
        """Return the API group, empty for the core's."""
        return self.api_version.rpartition("/")[0]

    def path(self, namespace: str | None, name: str = "", sub: str = "") -> str:
        """Return the path of an object, of the list of a namespace, or (None) of the list of all namespaces."""
        root = f"/apis/{self.api_version}" if self.group else f"/api/{self.api_version}"
        parts = [root, *(["namespaces", namespace] if namespace else []), self.plural, name, sub]
        return "/".join(part for part in parts if part)


CLUSTER = Kind(API_VERSION, PLURAL, KIND)
DEPLOYMENT = Kind("apps/v1", "deployments", "Deployment")
JOB = Kind("batch/v1", "jobs", "Job")
SERVICE = Kind("v1", "services", "Service")
SERVICE_ACCOUNT = Kind("v1", "serviceaccounts", "ServiceAccount")
INGRESS = Kind("networking.k8s.io/v1", "ingresses", "Ingress")
NETWORK_POLICY = Kind("networking.k8s.io/v1", "networkpolicies", "NetworkPolicy")
DISRUPTION_BUDGET = Kind("policy/v1", "poddisruptionbudgets", "PodDisruptionBudget")
POD_MONITOR = Kind("monitoring.coreos.com/v1", "podmonitors", "PodMonitor")
POD = Kind("v1", "pods", "Pod")
SECRET = Kind("v1", "secrets", "Secret")
EVENT = Kind("v1", "events", "Event")
LEASE = Kind("coordination.k8s.io/v1", "leases", "Lease")

# What the operator makes. A PodMonitor exists only where the Prometheus operator is installed.
MADE = (SERVICE_ACCOUNT, SERVICE, DISRUPTION_BUDGET, INGRESS, NETWORK_POLICY, JOB, DEPLOYMENT)
OPTIONAL = (POD_MONITOR,)
BY_NAME = {kind.name: kind for kind in (*MADE, *OPTIONAL)}


def kind_of(manifest: Body) -> Kind:
    """Return the kind of something that the operator makes."""
    return BY_NAME[manifest["kind"]]
