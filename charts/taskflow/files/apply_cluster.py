"""Apply the TaskFlowCluster of a release, owned by the release's ConfigMap: `apply_cluster.py FILE CONFIGMAP`.

It runs in a pod, as a hook of the chart, on the standard library alone. The API server gets two minutes to know the
kind and to answer; what it refuses is printed in its own words, and the exit status is 1.
"""

import json
import os
import random
import ssl
import sys
import time
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

ACCOUNT = Path(os.environ.get("ACCOUNT_DIR", "/var/run/secrets/kubernetes.io/serviceaccount"))
API = "https://{KUBERNETES_SERVICE_HOST}:{KUBERNETES_SERVICE_PORT}".format_map(os.environ)
KINDS = "/apis/taskflow.io/v1alpha1"
DEADLINE_S = 120.0
CALL_S = 10.0
PASSING = {408, 409, 429, 500, 502, 503, 504}


class Refused(Exception):
    """The API server says no, and would say so again."""


class NotYet(Exception):
    """It may work in a moment."""


def call(method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """Return what the API server answers, None for 404.

    Raises:
        NotYet: it is away, busy, or somebody else came in between.
        Refused: the text is the API server's.
    """
    headers = {"Authorization": f"Bearer {(ACCOUNT / 'token').read_text().strip()}"}
    if body is not None:
        headers["Content-Type"] = "application/apply-patch+yaml"  # JSON is YAML
    data = None if body is None else json.dumps(body).encode()
    request = Request(API + path, data, headers, method=method)  # noqa: S310 - https, above
    context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    try:
        with urlopen(request, timeout=CALL_S, context=context) as answer:  # noqa: S310 - https, above
            found: dict[str, Any] = json.load(answer)
            return found
    except HTTPError as error:
        if error.code == 404:
            return None
        said = error.read().decode(errors="replace")
        failure = NotYet if error.code in PASSING else Refused
        raise failure(_message(said) or f"{error.code} {error.reason}") from error
    except (URLError, OSError, ValueError) as error:
        raise NotYet(f"no answer from {API}: {error}") from error


def _message(said: str) -> str:
    try:
        return str(json.loads(said)["message"])
    except (ValueError, KeyError, TypeError):
        return said[:500]


def apply(manifest: dict[str, Any], configmap: str) -> str:
    """Apply the manifest once; return its name.

    Raises:
        NotYet, Refused: as `call` does, and when a TaskFlowCluster of that name is leaving, or not the release's.
    """
    name, namespace = manifest["metadata"]["name"], manifest["metadata"]["namespace"]
    kinds = call("GET", KINDS) or {"resources": []}
    if not any(kind["name"] == "taskflowclusters" for kind in kinds["resources"]):
        raise NotYet("the API server does not know the kind TaskFlowCluster (crds.install=false, and nobody else's?)")
    owner = call("GET", f"/api/v1/namespaces/{namespace}/configmaps/{configmap}")
    if owner is None:
        raise NotYet(f"there is no ConfigMap {configmap} in {namespace}")
    path = f"{KINDS}/namespaces/{namespace}/taskflowclusters/{name}"
    check_owner(call("GET", path), configmap, owner["metadata"]["uid"])
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": configmap, "uid": owner["metadata"]["uid"]}
    metadata = manifest["metadata"] | {"ownerReferences": [reference]}
    query = "?fieldManager=taskflow-chart&force=true&fieldValidation=Strict"
    if call("PATCH", path + query, manifest | {"metadata": metadata}) is None:
        raise NotYet(f"there is no namespace {namespace}")
    return f"TaskFlowCluster {name} in {namespace}"


def check_owner(existing: dict[str, Any] | None, configmap: str, uid: str) -> None:
    """Pass when there is no such TaskFlowCluster yet, or when it is the release's.

    Raises:
        NotYet: it belongs to the release that was here before, and goes with it.
        Refused: it belongs to nobody or to somebody else.
    """
    if existing is None:
        return
    metadata = existing["metadata"]
    uids = [owner["uid"] for owner in metadata.get("ownerReferences", []) if owner["name"] == configmap]
    if uids and (uid not in uids or "deletionTimestamp" in metadata):
        raise NotYet(f"TaskFlowCluster {metadata['name']} of an earlier release is still going away")
    if not uids:
        raise Refused(
            f"TaskFlowCluster {metadata['name']} in {metadata['namespace']} was not made by this release: set "
            "cluster.name to another name, or cluster.enabled to false to leave it alone"
        )


def main(file: str, configmap: str) -> int:
    """Apply until that works, is refused, or takes too long."""
    manifest = json.loads(Path(file).read_text())
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            print(f"{apply(manifest, configmap)} applied")  # noqa: T201 - the log of the Job
            return 0
        except Refused as refused:
            print(refused, file=sys.stderr)  # noqa: T201 - as above
            return 1
        except NotYet as reason:
            if time.monotonic() > deadline:
                print(f"given up after {DEADLINE_S:.0f} s: {reason}", file=sys.stderr)  # noqa: T201 - as above
                return 1
            time.sleep(random.uniform(0.5, 1.5))  # noqa: S311 - jitter


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
