"""What the operator sees of a cluster, and what it makes of single objects: whose they are, whether they drifted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from taskflow_operator.kinds import CLUSTER, Body
from taskflow_operator.names import CLUSTER_LABEL, MANAGER, MANIFEST_ANNOTATION, PAUSED_ANNOTATION, digest

REVISION = "deployment.kubernetes.io/revision"
VOLATILE = ("resourceVersion", "managedFields", "generation", "creationTimestamp", "selfLink")
Owner = Literal["ours", "orphan", "former", "foreign"]


class Key(NamedTuple):
    """Which object: its kind's name and its own."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def key_of(body: Body) -> Key:
    """Return the key of an object."""
    return Key(body["kind"], body["metadata"]["name"])


class Refusal(NamedTuple):
    """What the API server said to a manifest, and the stamp of that."""

    stamp: str
    message: str


def stamp_of(body: Body) -> str:
    """Return what stands for the manifest that an object was last made of; empty for none."""
    return str(body["metadata"].get("annotations", {}).get(MANIFEST_ANNOTATION, ""))


@dataclass(frozen=True, slots=True)
class Observed:
    """One look at a cluster.

    `children` and `pods` carry its label; `hashes` has a text for each component's Secrets, `missing` a sentence for
    each that cannot be used. `settled` are fingerprints after our own last applies, `taken` names in others' hands,
    and `refused` what the API server said to the last apply.
    """

    metadata: Body
    children: Mapping[Key, Body] = field(default_factory=dict)
    pods: Sequence[Body] = ()
    hashes: Mapping[str, str] = field(default_factory=dict)
    missing: Sequence[str] = ()
    settled: Mapping[Key, str] = field(default_factory=dict)
    taken: frozenset[Key] = frozenset()
    refused: Mapping[Key, Refusal] = field(default_factory=dict)

    @property
    def uid(self) -> str:
        """Return the uid of the custom resource."""
        return str(self.metadata["uid"])

    @property
    def paused(self) -> bool:
        """Whether the annotation asks to reconcile nothing."""
        return self.metadata.get("annotations", {}).get(PAUSED_ANNOTATION, "").lower() in {"true", "1", "yes"}

    def owner(self, body: Body) -> Owner:
        """Say whose an object is: orphans carry our labels and nobody's reference, former ones an older uid's."""
        references = body["metadata"].get("ownerReferences", [])
        if any(reference["uid"] == self.uid for reference in references):
            return "ours"
        if any(reference["kind"] == CLUSTER.name for reference in references):
            return "former"
        labels = body["metadata"].get("labels", {})
        named = labels.get(CLUSTER_LABEL) == self.metadata["name"]
        managed = labels.get("app.kubernetes.io/managed-by") == MANAGER
        return "orphan" if named and managed and not references else "foreign"


def fingerprint(body: Body) -> str:
    """Return a text that changes when somebody changes the object, and not by its status or its replica count."""
    metadata = {key: value for key, value in body["metadata"].items() if key not in VOLATILE}
    metadata["annotations"] = {key: text for key, text in metadata.get("annotations", {}).items() if key != REVISION}
    rest = {key: value for key, value in body.items() if key not in {"metadata", "status", "spec"}}
    spec = {key: value for key, value in body.get("spec", {}).items() if key != "replicas"}
    return digest([metadata, rest, spec])


def drifted(body: Body, manifest: Body, settled: str | None) -> bool:
    """Whether an object is not what the manifest says, or was changed since our last apply.

    The API server writes some values its own way ("1000m" becomes "1"); `settled` tells that from a change.
    """
    if stamp_of(body) != stamp_of(manifest):
        return True
    return settled != fingerprint(body) if settled is not None else not contains(body, manifest)


def contains(found: Any, wanted: Any) -> bool:
    """Whether `found` holds everything that `wanted` names. Lists of named things are matched by name."""
    if wanted in (None, "", [], {}):
        return True
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(contains(found.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list):
        return isinstance(found, list) and _list_contains(found, wanted)
    return bool(found == wanted)


def _list_contains(found: list[Any], wanted: list[Any]) -> bool:
    if all(isinstance(item, dict) and "name" in item for item in wanted):
        by_name = {item.get("name"): item for item in found if isinstance(item, dict)}
        return all(contains(by_name.get(item["name"]), item) for item in wanted)
    return len(found) == len(wanted) and all(map(contains, found, wanted))


def replicas(deployment: Body) -> int:
    """Return how many pods a Deployment asks for."""
    return int(deployment["spec"].get("replicas", 1))


def rolling_out(deployment: Body) -> bool:
    """Whether pods of an older template exist, or the Deployment was not looked at since its last change."""
    status = deployment.get("status", {})
    if status.get("observedGeneration", 0) < deployment["metadata"].get("generation", 0):
        return True
    return int(status.get("updatedReplicas", 0)) < int(status.get("replicas", 0))


def job_state(job: Body) -> Literal["running", "complete", "failed"]:
    """Say how a Job stands."""
    for condition in job.get("status", {}).get("conditions", []):
        if condition["status"] == "True" and condition["type"] in {"Complete", "Failed"}:
            return "complete" if condition["type"] == "Complete" else "failed"
    return "running"
