"""What is wrong with a cluster, each in a word for machines and a sentence that says what to do."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

from taskflow_operator.kinds import DEPLOYMENT, JOB, Body
from taskflow_operator.names import COMPONENT_LABEL
from taskflow_operator.observed import Key, Observed, job_state

PULL = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
CONFIG = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
PATIENCE = timedelta(seconds=60)
MAX_TEXT = 400


class Problem(NamedTuple):
    """One thing that is wrong."""

    reason: str
    message: str


def problems(observed: Observed, now: datetime) -> list[Problem]:
    """Return everything that is wrong, what has to be mended first in front."""
    found = [
        *(Problem("SecretMissing", sentence) for sentence in observed.missing),
        *(Problem("NameTaken", _taken(key)) for key in _foreign(observed)),
        *(
            Problem("Refused", f"the API server refuses {key}: {_cut(no.message)}")
            for key, no in observed.refused.items()
        ),
        *_of_jobs(observed),
        *_of_deployments(observed),
        *_of_pods(observed, now),
    ]
    return list(dict.fromkeys(found))


def _foreign(observed: Observed) -> list[Key]:
    labelled = [key for key, body in observed.children.items() if observed.owner(body) == "foreign"]
    return sorted({*observed.taken, *labelled})


def _taken(key: Key) -> str:
    return f"{key} exists and belongs to somebody else, it is left alone: rename it, or this cluster"


def _of_jobs(observed: Observed) -> Iterator[Problem]:
    for key, body in observed.children.items():
        if key.kind == JOB.name and observed.owner(body) == "ours" and job_state(body) == "failed":
            said = next((text for pod in observed.pods if _is_of(pod, "migrate") and (text := _last_words(pod))), "")
            hint = said or f"see kubectl logs job/{key.name}"
            yield Problem("MigrationFailed", f"{key} failed and is tried again every 5 minutes: {hint}")


def _of_deployments(observed: Observed) -> Iterator[Problem]:
    for key, body in observed.children.items():
        if key.kind != DEPLOYMENT.name or observed.owner(body) != "ours":
            continue
        conditions = {item["type"]: item for item in body.get("status", {}).get("conditions", [])}
        failure, progress = conditions.get("ReplicaFailure", {}), conditions.get("Progressing", {})
        if failure.get("status") == "True":
            said = _cut(failure.get("message", ""))
            over = "quota" in said
            hint = "raise the quota, or ask for less" if over else "see to the policy that refuses them"
            yield Problem("QuotaExceeded" if over else "PodsRefused", f"{key} cannot make its pods, {hint}: {said}")
        elif progress.get("reason") == "ProgressDeadlineExceeded":
            yield Problem("RolloutStuck", f"{key} does not get ready: {_cut(progress.get('message', ''))}")


def _of_pods(observed: Observed, now: datetime) -> Iterator[Problem]:
    for pod in observed.pods:
        for container in pod.get("status", {}).get("containerStatuses", []):
            yield from _of_container(pod, container)
        for condition in pod.get("status", {}).get("conditions", []):
            if condition["status"] == "False" and _older(condition.get("lastTransitionTime"), now):
                yield from _of_condition(pod, condition)


def _of_container(pod: Body, container: Body) -> Iterator[Problem]:
    waiting = container.get("state", {}).get("waiting", {})
    name, reason, said = pod["metadata"]["name"], waiting.get("reason", ""), _cut(waiting.get("message", ""))
    if reason in PULL:
        image = container.get("image", "the image")
        yield Problem("ImagePullFailed", f"{image} cannot be pulled ({reason}), check spec.image: {said}")
    elif reason in CONFIG:
        yield Problem("ContainerRefused", f"the container of Pod {name} cannot be made: {said}")
    elif reason == "CrashLoopBackOff":
        yield Problem("Crashing", f"Pod {name} ends again and again: {_last_words(pod) or said}")


def _of_condition(pod: Body, condition: Body) -> Iterator[Problem]:
    if condition.get("reason") == "Unschedulable":
        said = _cut(condition.get("message", ""))
        yield Problem("Unschedulable", f"Pod {pod['metadata']['name']} finds no node: {said}")
    elif condition["type"] == "Ready" and _is_of(pod, "api"):
        yield from _unready_api(pod)


def _unready_api(pod: Body) -> Iterator[Problem]:
    running = [item for item in pod["status"].get("containerStatuses", []) if "running" in item.get("state", {})]
    if running and not pod["metadata"].get("deletionTimestamp"):
        name = pod["metadata"]["name"]
        yield Problem(
            "ApiNotReady",
            f"Pod {name} runs and is not ready: check that PostgreSQL at spec.database can be reached from it and that "
            f"its schema is migrated (kubectl logs {name})",
        )


def _is_of(pod: Body, component: str) -> bool:
    return bool(pod["metadata"].get("labels", {}).get(COMPONENT_LABEL) == component)


def _last_words(pod: Body) -> str:
    """Return what the pod's container wrote before it ended; the pods fall back to their logs for that."""
    for container in pod.get("status", {}).get("containerStatuses", []):
        for state in ("state", "lastState"):
            message = container.get(state, {}).get("terminated", {}).get("message", "")
            if message:
                return _cut(message)
    return ""


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_TEXT else line[: MAX_TEXT - 3] + "..."


def _older(moment: str | None, now: datetime) -> bool:
    return moment is not None and datetime.fromisoformat(moment) + PATIENCE < now
