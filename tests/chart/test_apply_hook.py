"""The hook that applies the TaskFlowCluster, as a process of its own against a real API server."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from chart.conftest import NAMESPACE
from chart.helm import CHART, Body
from cluster.api_server import ADMIN, ApiServer
from waiting import eventually

SCRIPT = CHART / "files" / "apply_cluster.py"
OWNER = "hook-taskflowcluster"


def manifest(**spec: object) -> Body:
    secret = {"name": "keys"}
    return {
        "apiVersion": "taskflow.io/v1alpha1",
        "kind": "TaskFlowCluster",
        "metadata": {"name": "hook", "namespace": NAMESPACE},
        "spec": {
            "image": {"repository": "taskflow/platform", "tag": "1"},
            "database": {"urlSecretRef": secret},
            "redis": {"urlSecretRef": secret},
            "auth": {"secretRef": secret},
            **spec,
        },
    }


class Stage:
    """The API server, and the hook as a pod of the release would run it."""

    def __init__(self, server: ApiServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        (folder / "token").write_text(server.tokens[ADMIN])
        (folder / "ca.crt").write_bytes(server.ca.read_bytes())

    def make(self, body: Body) -> None:
        made = self.server.kubectl("create", "--namespace", NAMESPACE, "-f", "-", text=yaml.safe_dump(body))
        assert made.returncode == 0, made.stderr

    def make_owner(self) -> None:
        self.make({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": OWNER}})

    def found(self, what: str) -> Body | None:
        shown = self.server.kubectl("get", what, "--namespace", NAMESPACE, "-o", "json")
        return json.loads(shown.stdout) if shown.returncode == 0 else None

    def start(self, body: Body) -> "subprocess.Popen[str]":
        (self.folder / "manifest.json").write_text(json.dumps(body))
        address = urlsplit(self.server.url)
        env = {
            "PATH": os.environ["PATH"],
            "ACCOUNT_DIR": str(self.folder),
            "KUBERNETES_SERVICE_HOST": str(address.hostname),
            "KUBERNETES_SERVICE_PORT": str(address.port),
        }
        command = [sys.executable, str(SCRIPT), str(self.folder / "manifest.json"), OWNER]
        return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, body: Body) -> tuple[int, str]:
        process = self.start(body)
        output, errors = process.communicate(timeout=60)
        return process.returncode, output + errors

    def clean(self) -> None:
        for what in ("tfc/hook", f"configmap/{OWNER}"):
            self.server.kubectl("delete", what, "--namespace", NAMESPACE, "--ignore-not-found")


@pytest.fixture
def stage(api_server: ApiServer, tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(api_server, tmp_path)
    yield stage
    stage.clean()


def test_the_platform_belongs_to_the_release_and_follows_it(stage: Stage) -> None:
    stage.make_owner()
    assert stage.run(manifest(suspend=True)) == (0, f"TaskFlowCluster hook in {NAMESPACE} applied\n")
    owner = stage.found(f"configmap/{OWNER}")
    made = stage.found("tfc/hook")
    assert owner is not None
    assert made is not None
    (reference,) = made["metadata"]["ownerReferences"]
    assert (reference["kind"], reference["uid"]) == ("ConfigMap", owner["metadata"]["uid"])
    assert made["spec"]["suspend"] is True
    assert stage.run(manifest(api={"replicas": 4}))[0] == 0
    changed = stage.found("tfc/hook")
    assert changed is not None
    assert (changed["spec"]["suspend"], changed["spec"]["api"]["replicas"]) == (False, 4)


def test_a_platform_of_somebody_else_is_left_alone(stage: Stage) -> None:
    stage.make_owner()
    stage.make(manifest(suspend=True))
    status, said = stage.run(manifest())
    assert status == 1
    assert "was not made by this release: set cluster.name to another name" in said
    kept = stage.found("tfc/hook")
    assert kept is not None
    assert kept["spec"]["suspend"] is True


def test_what_the_api_server_refuses_is_said_in_its_words(stage: Stage) -> None:
    stage.make_owner()
    status, said = stage.run(manifest(workers={"maxTaskSeconds": 600, "terminationGracePeriodSeconds": 600}))
    assert status == 1
    assert "maxTaskSeconds + 30 must not be above terminationGracePeriodSeconds" in said


def test_the_platform_of_an_earlier_release_is_waited_for(stage: Stage) -> None:
    stage.make_owner()
    assert stage.run(manifest())[0] == 0
    before = stage.found("tfc/hook")
    stage.server.kubectl("delete", f"configmap/{OWNER}", "--namespace", NAMESPACE)
    stage.make_owner()
    process = stage.start(manifest())
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=3)
        stage.server.kubectl("delete", "tfc/hook", "--namespace", NAMESPACE)
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait(timeout=10)
    assert process.returncode == 0, output + errors
    after = stage.found("tfc/hook")
    assert before is not None
    assert after is not None
    assert before["metadata"]["uid"] != after["metadata"]["uid"]


def test_a_wrong_token_is_said(stage: Stage) -> None:
    (stage.folder / "token").write_text("wrong")
    status, said = stage.run(manifest())
    assert (status, "Unauthorized" in said) == (1, True)


def test_the_owner_may_come_a_moment_later(stage: Stage) -> None:
    process = stage.start(manifest())
    stage.make_owner()
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, output + errors
    eventually(lambda: stage.found("tfc/hook"))
