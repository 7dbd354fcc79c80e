"""The simulator: what its models do to the loads of scenario 5 and others, and the command."""

import json
import sys
from pathlib import Path

import pytest

from taskflow_cli.failures import BadInput
from taskflow_cli.main import main
from taskflow_cli.simulate import read_load, read_policy
from taskflow_core.scaling_policy import ScalingPolicy
from taskflow_core.simulation import SCALERS, Arrival, Outcome, simulate, synthetic

POLICY = ScalingPolicy(min_replicas=0, max_replicas=20)


def run(name: str, load: list[Arrival], policy: ScalingPolicy = POLICY) -> Outcome:
    return simulate(SCALERS[name](policy), load, policy=policy, slots=4, start_s=15)


def test_long_tasks_are_never_killed_and_soon_started_where_keda_kills_them_again_and_again() -> None:
    ours, keda = run("taskflow", synthetic("long")), run("keda", synthetic("long"))
    assert (ours.killed, ours.unfinished) == (0, 0)
    assert ours.wait_p95_s < 60
    assert keda.killed > 0
    assert keda.wait_p95_s > ours.wait_p95_s


@pytest.mark.parametrize("half_s", [75, 150])
def test_5_an_oscillating_load_is_followed_without_flapping(half_s: int) -> None:
    """A square wave for an hour, 0.1 s and 300 s tasks mixed; half the window of 300 s is its period or its half."""
    on = [second for second in range(3600) if second % (2 * half_s) < half_s]
    wave = [Arrival(second, 0.1) for second in on for _ in range(20)]
    wave += [Arrival(second, 300.0) for second in on if second % 5 == 0]
    policy = ScalingPolicy(min_replicas=1, max_replicas=20, latency_slo_seconds=60)
    ours, keda = run("taskflow", wave, policy), run("keda", wave, policy)
    hours = ours.points[-1].now_s / 3600
    sys.stdout.write(
        f"\n{half_s} s on, {half_s} s off, {ours.tasks} tasks in {hours:.1f} h: {ours.changes / hours:.0f} changes an "
        f"hour, wait p95 {ours.wait_p95_s:.1f} s, at most {max(point.oldest_s for point in ours.points):.0f} s (SLO 60 "
        f"s), {ours.killed} busy evicted, {ours.pod_hours:.1f} pod-hours; KEDA's model: p95 {keda.wait_p95_s:.1f} s, "
        f"{keda.killed} evicted, {keda.pod_hours:.1f} pod-hours\n"
    )
    assert ours.changes / hours <= 24
    assert ours.wait_p95_s <= 60
    assert (ours.killed, ours.unfinished) == (0, 0)
    assert keda.killed > 0, "this load can evict"


@pytest.mark.parametrize("shape", ["burst", "bimodal"])
def test_every_task_ends_and_the_pool_goes_back_to_its_minimum(shape: str) -> None:
    ours = run("taskflow", synthetic(shape))
    assert (ours.killed, ours.unfinished, ours.points[-1].replicas) == (0, 0, 0)


def test_the_same_seed_is_the_same_load() -> None:
    assert synthetic("bimodal", seed=3) == synthetic("bimodal", seed=3) != synthetic("bimodal", seed=4)


def test_the_command_compares_on_a_load_and_a_policy_of_ones_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load, policy = tmp_path / "load.csv", tmp_path / "policy.yaml"
    load.write_text("at_s,run_s,count\n0,5,40\n100,1,\n")
    policy.write_text("minReplicas: 0\nmaxReplicas: 4\nscaleToZeroAfterSeconds: 60\n")
    arguments = ["simulate", "--load", str(load), "--policy", str(policy), "--against", "hpa"]
    for extra in (["--json"], []):
        with pytest.raises(SystemExit) as left:
            main([*arguments, *extra])
        assert left.value.code == 0
    out = capsys.readouterr().out
    rows = json.loads(out[: out.index("]") + 1])
    assert [(row["scaler"], row["tasks"], row["killed"]) for row in rows] == [("taskflow", 41, 0), ("hpa", 41, 0)]
    assert "pod-hours" in out
    assert "replicas" in out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("at_s,run_s\n0,x\n", "line 2: could not convert"),
        ("at_s\n0\n", "line 2: 'run_s'"),
        ("at_s,run_s\n0,1\n-1,1\n", "line 3: a time is not between"),
        ("at_s,run_s,count\n0,1,2000000\n", "more than 1,000,000 tasks"),
    ],
)
def test_a_load_that_cannot_be_read_names_the_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "load.csv").write_text(text)
    with pytest.raises(BadInput) as refused:
        read_load(tmp_path / "load.csv")
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"maxReplicas": 0}', "maxReplicas"),
        ('{"minReplicas": 9, "maxReplicas": 2}', "minReplicas 9 is more than maxReplicas 2"),
        ("{", "cannot be read"),
    ],
)
def test_a_policy_that_is_wrong_names_the_field(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "policy.json").write_text(text)
    with pytest.raises(BadInput) as refused:
        read_policy(tmp_path / "policy.json")
    assert words in str(refused.value)
