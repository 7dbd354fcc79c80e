"""Each alert fires when it should and not otherwise, by the rules of the real promtool."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from prometheus import RULES, program

Series = dict[str, str]


class Case(NamedTuple):
    """Series (a value each minute) under which an alert fires, and some under which it does not."""

    alert: str
    fires: Series
    quiet: Series


def finished(failed: int) -> Series:
    """Return what 60 tasks a minute leave, of which so many fail."""
    return {
        'taskflow_tasks_finished_total{namespace="a",type="EMAIL",status="FAILED"}': f"0+{failed}x90",
        'taskflow_tasks_finished_total{namespace="a",type="EMAIL",status="COMPLETED"}': f"0+{60 - failed}x90",
    }


def queue(age_s: int, *, name: str = "default", paused: int = 0) -> Series:
    """Return what two schedulers say of a queue."""
    labels = [f'namespace="a",instance="scheduler-{number}",queue="{name}"' for number in (1, 2)]
    ages = {f"taskflow_queue_oldest_age_seconds{{{one}}}": f"{age_s}x90" for one in labels}
    return ages | {f"taskflow_queue_paused{{{one}}}": f"{paused}x90" for one in labels}


def idle(*, waiting: int, busy: int, paused: int = 0) -> Series:
    return queue(0, paused=paused) | {
        'taskflow_queue_waiting{namespace="a",instance="scheduler-1",queue="default"}': f"{waiting}x90",
        'taskflow_queue_waiting{namespace="a",instance="scheduler-2",queue="default"}': f"{waiting}x90",
        'taskflow_worker_slots{namespace="a"}': "16x90",
        'taskflow_worker_busy_slots{namespace="a"}': f"{busy}x90",
    }


def workers(running: int, lost: int, *, age_s: int = 120) -> Series:
    return queue(age_s) | {
        'taskflow_workers{namespace="a",instance="scheduler-1",state="running"}': f"{running}x90",
        'taskflow_workers{namespace="a",instance="scheduler-1",state="lost"}': f"{lost}x90",
    }


def build(component: str) -> str:
    return f'taskflow_build_info{{namespace="a",job="taskflow",instance="{component}-1",component="{component}"}}'


def rounds(*, stopped: bool) -> Series:
    """Return the times of a scheduler's last rounds; one that stops does so at once."""
    times = "0x90" if stopped else "0+60x90"
    return {
        build("scheduler"): "1x90",
        build("api"): "1x90",
        'taskflow_scheduler_last_round_timestamp_seconds{namespace="a"}': times,
    }


def webhooks(arrived: int) -> Series:
    return {
        'taskflow_webhook_attempt_seconds_count{namespace="a",arrived="true"}': f"0+{arrived}x90",
        'taskflow_webhook_attempt_seconds_count{namespace="a",arrived="false"}': f"0+{10 - arrived}x90",
    }


def requests(*, errors: int, slow: int = 0) -> Series:
    """Return what 600 requests a minute leave: so many errors, so many that take between 1 and 2.5 s."""
    return {
        'taskflow_http_requests_total{namespace="a",status="503"}': f"0+{errors}x90",
        'taskflow_http_requests_total{namespace="a",status="200"}': f"0+{600 - errors}x90",
        'taskflow_http_request_duration_seconds_bucket{namespace="a",le="1.0"}': f"0+{600 - slow}x90",
        'taskflow_http_request_duration_seconds_bucket{namespace="a",le="2.5"}': "0+600x90",
        'taskflow_http_request_duration_seconds_bucket{namespace="a",le="+Inf"}': "0+600x90",
    }


def restarts(times: int) -> Series:
    starts = " ".join(str(number) for number in range(times + 1))
    return {
        build("worker"): "1x90",
        'process_start_time_seconds{namespace="a",job="taskflow",instance="worker-1"}': f"0x36 {starts} {times}x30",
    }


def one(series: str, values: object) -> Series:
    """Return one series; a number is told again and again."""
    return {series: values if isinstance(values, str) else f"{values}x90"}


POOL = 'cluster_namespace="a",cluster="demo",pool="default"'


def limited(*, waiting: int) -> Series:
    limit = 'taskflow_operator_cluster_condition{cluster_namespace="a",cluster="demo",condition="ScalingLimited"}'
    return one(limit, 1) | one(f"taskflow_operator_pool_waiting{{{POOL}}}", waiting)


def degraded(value: int) -> Series:
    return one(f'taskflow_operator_cluster_condition{{{POOL},condition="Degraded"}}', value)


def pool(used: int) -> Series:
    labels = '{namespace="a",job="taskflow",instance="api-1"}'
    names = "taskflow_database_pool_connections_in_use", "taskflow_database_pool_connections_max"
    return one(names[0] + labels, used) | one(names[1] + labels, 10)


def named(name: str, **labels: str) -> str:
    inside = ",".join(f'{label}="{value}"' for label, value in ({"namespace": "a"} | labels).items())
    return f"{name}{{{inside}}}"


SILENT = {build("scheduler"): "1x90"}
CASES = [
    Case("TaskFlowTasksFail", finished(10), finished(3)),
    Case("TaskFlowQueueOverdue", queue(400), queue(400, paused=1)),
    Case("TaskFlowQueueWaitsForNobody", queue(400, name="other"), queue(100)),
    Case("TaskFlowWorkersIdleWhileTasksWait", idle(waiting=60, busy=1), idle(waiting=60, busy=16)),
    Case("TaskFlowWorkersIdleWhileTasksWait", idle(waiting=60, busy=0), idle(waiting=60, busy=0, paused=1)),
    Case("TaskFlowWorkersIdleWhileTasksWait", idle(waiting=51, busy=0), idle(waiting=40, busy=0)),
    Case(
        "TaskFlowLeasesExpire",
        one(named("taskflow_leases_expired_total", status="PENDING"), "0+1x90"),
        one(named("taskflow_leases_expired_total", status="PENDING"), "3x90"),
    ),
    Case(
        "TaskFlowDeadLettersGrow",
        one(named("taskflow_dead_letters"), "0+3x90"),
        one(named("taskflow_dead_letters"), "5000+1x90"),
    ),
    Case("TaskFlowNoWorkers", workers(0, 3), workers(0, 3, age_s=0)),
    Case("TaskFlowNoWorkers", workers(0, 0), workers(1, 3)),
    Case("TaskFlowWorkersLost", workers(3, 1), workers(3, 0)),
    Case("TaskFlowProcessRestarts", restarts(5), restarts(1)),
    Case("TaskFlowSchedulerStopped", rounds(stopped=True), rounds(stopped=False)),
    Case("TaskFlowSchedulerStopped", {build("api"): "1x90"}, rounds(stopped=False)),
    Case(
        "TaskFlowSchedulerLate",
        one(named("taskflow_scheduler_lag_seconds", job_name="enqueue_due", job="s", instance="1"), 30),
        one(named("taskflow_scheduler_lag_seconds", job_name="enqueue_due", job="s", instance="1"), 30)
        | one(named("taskflow_scheduler_lag_seconds", job_name="enqueue_due", job="s", instance="2"), 0),
    ),
    Case(
        "TaskFlowOutboxLags",
        one(named("taskflow_outbox_lag_seconds"), 60),
        one(named("taskflow_outbox_lag_seconds"), 2),
    ),
    Case("TaskFlowFiguresMissing", SILENT, SILENT | one(named("taskflow_standing_timestamp_seconds"), 1)),
    Case("TaskFlowWebhooksFail", webhooks(2), webhooks(9)),
    Case(
        "TaskFlowWebhooksLate",
        one(named("taskflow_webhook_lag_seconds"), 400),
        one(named("taskflow_webhook_lag_seconds"), 20),
    ),
    Case("TaskFlowRedisUnreachable", one(named("taskflow_redis_up"), 0), one(named("taskflow_redis_up"), 1)),
    Case(
        "TaskFlowWorkersDegraded", one(named("taskflow_worker_degraded"), 1), one(named("taskflow_worker_degraded"), 0)
    ),
    Case("TaskFlowDatabasePoolExhausted", pool(10), pool(5)),
    Case(
        "TaskFlowDatabaseUnreachable",
        one(named("taskflow_scheduler_failures_total"), "0+2x90"),
        one(named("taskflow_scheduler_failures_total"), "0x40 1x50"),
    ),
    Case("TaskFlowApiErrors", requests(errors=60), requests(errors=6)),
    Case("TaskFlowApiSlow", requests(errors=0, slow=60), requests(errors=0, slow=1)),
    Case(
        "TaskFlowLoginsFail",
        one(named("taskflow_logins_total", outcome="failed"), "0+120x90"),
        one(named("taskflow_logins_total", outcome="succeeded"), "0+120x90"),
    ),
    Case(
        "TaskFlowOperatorNotLeading",
        one(named("taskflow_operator_leader", instance="1"), 0),
        one(named("taskflow_operator_leader", instance="1"), 0)
        | one(named("taskflow_operator_leader", instance="2"), 1),
    ),
    Case(
        "TaskFlowReconcileFails",
        one(named("taskflow_operator_reconcile_errors_total", kind="api"), "0+1x90"),
        one(named("taskflow_operator_reconcile_errors_total", kind="api"), "2x90"),
    ),
    Case(
        "TaskFlowScalingBlocked",
        one(f"taskflow_operator_pool_scaling_active{{{POOL}}}", 0),
        one(f"taskflow_operator_pool_scaling_active{{{POOL}}}", 1),
    ),
    Case("TaskFlowScalingLimited", limited(waiting=5), limited(waiting=0)),
    Case("TaskFlowClusterDegraded", degraded(1), degraded(0)),
]


def promtool_test(series: Series, alert: str, *, firing: bool) -> dict[str, Any]:
    expected = [{"labels": "{}", "value": 1}] if firing else []
    return {
        "interval": "1m",
        "name": f"{alert} {'fires' if firing else 'is quiet'}",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{alert}", alertstate="firing"}})',
                "eval_time": "85m" if alert == "TaskFlowDeadLettersGrow" else "45m",
                "exp_samples": expected,
            }
        ],
    }


def test_every_alert_has_a_case() -> None:
    loaded = yaml.safe_load(RULES.read_text())
    alerts = {rule["alert"] for group in loaded["groups"] for rule in group["rules"] if "alert" in rule}
    assert {case.alert for case in CASES} == alerts


def test_promtool_takes_the_rules() -> None:
    checked = subprocess.run(
        [program("promtool"), "check", "rules", RULES], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("firing", [True, False], ids=["fires", "is quiet"])
def test_alerts_fire_when_they_should_and_not_otherwise(tmp_path: Path, *, firing: bool) -> None:
    tests = [promtool_test(case.fires if firing else case.quiet, case.alert, firing=firing) for case in CASES]
    plan = {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}
    file = tmp_path / "alerts.yaml"
    file.write_text(json.dumps(plan))
    ran = subprocess.run([program("promtool"), "test", "rules", file], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, re.sub(r"\x1b\[[0-9;]*m", "", ran.stdout + ran.stderr)
