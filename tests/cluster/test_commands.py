"""`taskflow cluster` and `taskflow operator`, through a kubeconfig as a user has one."""

import json
from typing import Any

import pytest

from cluster.api_server import ApiServer
from cluster.world import Cluster
from taskflow_cli.main import main
from taskflow_operator.kinds import CLUSTER

STATUS: dict[str, Any] = {
    "observedGeneration": 1,
    "phase": "Degraded",
    "api": {"replicas": 2, "readyReplicas": 1},
    "workers": {"name": "default", "replicas": 3, "readyReplicas": 3, "desired": 4, "busy": 2, "idle": 1},
    "pools": [{"name": "slow", "desired": 2, "reason": "1 -> 2: waiting 9, running 0"}],
    "conditions": [
        {
            "type": "Degraded",
            "status": "True",
            "reason": "SecretMissing",
            "message": "Secret jwt does not exist",
            "lastTransitionTime": "2026-11-24T12:00:00Z",
        }
    ],
    "scaling": {"recommended": 5, "desired": 4, "reason": "3 -> 4: waiting 12", "inputs": {"waiting": 12}},
}


@pytest.fixture
def shop(api_server: ApiServer, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setenv("KUBECONFIG", str(api_server.kubeconfig()))
    monkeypatch.setenv("COLUMNS", "200")
    cluster.create()
    cluster.patch(CLUSTER, "shop", {"status": STATUS}, sub="status")
    return cluster


def run(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    with pytest.raises(SystemExit) as left:
        main(["cluster", *arguments])
    shown = capsys.readouterr()
    assert (left.value.code or 0) == code, shown.err
    return shown.out if code == 0 else shown.err


def test_status_shows_the_phase_and_every_part(shop: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    lines = run(capsys, "status", "shop", "-n", shop.namespace).splitlines()
    assert lines[0] == "shop is Degraded."
    assert lines[2].split()[:3] == ["api", "1", "2"]
    assert lines[4].split() == ["pool", "default", "3", "3", "4", "2", "1", "0"]
    assert json.loads(run(capsys, "status", "shop", "-n", shop.namespace, "--json"))["phase"] == "Degraded"


def test_explain_says_what_is_wrong_and_what_was_decided(shop: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    text = run(capsys, "explain", "shop", "-n", shop.namespace)
    assert "Secret jwt does not exist" in text
    assert "Last decision: 3 -> 4: waiting 12" in text
    assert "Last decision about the pool slow: 1 -> 2: waiting 9, running 0" in text
    shop.patch(CLUSTER, "shop", {"spec": {"suspend": True}})
    assert "has not looked at the newest spec" in run(capsys, "explain", "shop", "-n", shop.namespace)


def test_pause_and_resume_set_and_take_away_the_annotation(shop: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    def annotations() -> dict[str, str]:
        return dict((shop.get(CLUSTER, "shop") or {})["metadata"].get("annotations", {}))

    run(capsys, "pause", "shop", "-n", shop.namespace)
    assert annotations() == {"taskflow.io/paused": "true"}
    run(capsys, "resume", "shop", "-n", shop.namespace)
    assert annotations() == {}
    shop.patch(CLUSTER, "shop", {"spec": {"paused": True}})
    assert "set spec.paused to false" in run(capsys, "resume", "shop", "-n", shop.namespace, code=2)


def test_a_cluster_that_is_not_there_is_named(shop: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    said = run(capsys, "status", "nope", "-n", shop.namespace, code=2)
    assert f"there is no TaskFlowCluster nope in the namespace {shop.namespace}" in said


def test_no_kubernetes_at_all_is_told_with_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert "kubectl get taskflowclusters must work here too" in run(capsys, "status", "shop", code=2)
