"""Every expression of rules and dashboards, asked of a real Prometheus that scrapes a real platform at work."""

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest
import yaml
from prometheus_client import generate_latest

import expositions
from api_app import PASSWORD
from children import children
from conftest import fresh_settings
from http_server import Answer, serving
from prometheus import RULES, Prometheus, scraping
from taskflow_cli.embedded.ports import free_port
from taskflow_core.database import plain_url
from waiting import eventually

DASHBOARDS = sorted((RULES.parent / "dashboards").glob("*.json"))
GROUPS = yaml.safe_load(RULES.read_text())["groups"]
RECORDED = [rule for group in GROUPS for rule in group["rules"] if "record" in rule]
ALERTS = [rule for group in GROUPS for rule in group["rules"] if "alert" in rule]
SELECTOR = re.compile(r"(?:taskflow_[a-z0-9_]+|taskflow:[a-z0-9_:]+|process_[a-z_]+)(?:\{[^}]*\})?")
LABEL_VALUES = re.compile(r"label_values\((.+), (\w+)\)")
VARIABLE = re.compile(r'"\$[a-z_]+"')
SETTINGS = {
    "webhook_key": "k" * 32,
    "webhook_allow_http": "true",
    "fetch_allow_hosts": "127.0.0.1",
    "bcrypt_rounds": "4",
    "metrics_interval_s": "0.5",
    "sweep_interval_s": "0.2",
}
TASKS = [
    *({"type": "ECHO", "payload": {"value": number}} for number in range(5)),
    {"type": "NAP", "payload": {"seconds": 0.1}},
    {"type": "RAISE", "payload": {}, "max_attempts": 1},
    {"type": "ECHO", "payload": {}, "delay_s": 1},
    {"type": "ECHO", "payload": {}, "queue": "nobody"},
]
UP = ("count(up == 1) == 4", "count(taskflow_tasks_finished_total) > 0")  # what starts at 1 shows no increase
SEEN = (
    'sum(taskflow_tasks_finished_total{status="COMPLETED"}) >= 8',  # the schedule's, too
    'sum(taskflow_tasks_finished_total{status="FAILED"}) == 1',
    'taskflow_schedules_fired_total{outcome="fired"} == 1',
    'taskflow_webhook_attempt_seconds_count{arrived="true"} >= 8',
    'taskflow_queue_waiting{queue="other"} == 1',
    "taskflow_dead_letters == 1",
    "sum(taskflow_retention_deleted_total) == 0",
    'sum(rate(taskflow_tasks_finished_total{status="FAILED"}[5m])) > 0',
    'taskflow:tasks_failed:ratio5m{type="RAISE"} > 0',
    # A rate needs two samples: of what is only there once it happened.
    "rate(taskflow_http_refused_total[5m])",
    'rate(taskflow_http_requests_total{status="429"}[5m])',
    "rate(taskflow_retention_deleted_total[5m])",
    "taskflow:http_errors:ratio5m",
)


def work(api: httpx2.Client, database_url: str, hook: str) -> None:
    """Have a user do a bit of everything, and somebody else guess passwords until they are refused."""
    account = {"email": "ada@example.com", "password": PASSWORD}
    assert api.post("/api/v1/auth/register", json=account).status_code == 201
    tokens = api.post("/api/v1/auth/login", json=account).json()
    api.headers["Authorization"] = f"Bearer {tokens['access_token']}"
    hooked = api.post("/api/v1/webhooks", json={"url": hook, "kinds": ["task.*"]})
    assert hooked.status_code == 201, hooked.text
    schedule = {"name": "hourly", "cron": "0 * * * *", "task": {"type": "ECHO", "payload": {}}}
    assert api.post("/api/v1/schedules", json=schedule).status_code == 201
    with psycopg.connect(database_url, autocommit=True) as database:
        database.execute("UPDATE schedules SET next_fire_at = clock_timestamp()")
    for task in TASKS:
        made = api.post("/api/v1/tasks", json=task)
        assert made.status_code == 201, made.text
    guess = {"email": "bob@example.com", "password": "wrong password"}
    statuses = [api.post("/api/v1/auth/login", json=guess).status_code for _ in range(11)]
    assert statuses == [401] * 10 + [429]


@pytest.fixture(scope="module")
def prometheus(
    postgres_url: str, redis_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """Return a Prometheus that has seen an API, a worker and a scheduler work, and an operator's exposition."""
    folder = tmp_path_factory.mktemp("prometheus")
    ports = {name: free_port() for name in ("api", "worker", "scheduler")}
    with ExitStack() as stack:
        settings = stack.enter_context(fresh_settings(postgres_url, redis_url, template_database))
        env = {
            "TASKFLOW_DATABASE_URL": settings.database_url.get_secret_value(),
            "TASKFLOW_REDIS_URL": settings.redis_url.get_secret_value(),
            "TASKFLOW_JWT_SECRET": "s" * 48,
            **{f"TASKFLOW_{name.upper()}": value for name, value in SETTINGS.items()},
        }
        nursery = stack.enter_context(children(env, folder))
        nursery.start("taskflow_api", api_port=str(ports["api"]))
        nursery.scheduler(probe_port=str(ports["scheduler"]))
        nursery.worker(probe_port=str(ports["worker"]))
        operator = expositions.operator()
        operator_server = stack.enter_context(serving(lambda _: Answer(body=generate_latest(operator))))
        receiver = stack.enter_context(serving(lambda _: Answer(204)))
        client = stack.enter_context(httpx2.Client(base_url=f"http://127.0.0.1:{ports['api']}", timeout=10))
        eventually(lambda: _is_ready(client))
        running = stack.enter_context(scraping(ports | {"operator": operator_server.port}, folder))
        _until_true(running, UP)
        work(client, plain_url(settings.database_url), receiver.url())
        _until_true(running, SEEN)
        yield running


def _is_ready(client: httpx2.Client) -> bool:
    try:
        return client.get("/health/ready").status_code == 200
    except httpx2.TransportError:
        return False


def _until_true(prometheus: Prometheus, expressions: Iterable[str]) -> None:
    for expression in expressions:
        try:
            eventually(partial(prometheus.query, expression), timeout=60)
        except AssertionError:
            told = prometheus.get("targets")["activeTargets"]
            raise AssertionError(f"{expression} is not so: {[one['lastError'] for one in told]}") from None


def filled_in(expression: str) -> str:
    """Return a dashboard's expression as Grafana sends it, everything selected."""
    return VARIABLE.sub('".*"', expression.replace("$__rate_interval", "5m"))


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.name)
def test_every_panel_of_a_dashboard_shows_something(prometheus: Prometheus, file: Path) -> None:
    panels = [panel for panel in json.loads(file.read_text())["panels"] if panel["type"] != "row"]
    asked = {f"{panel['title']}: {one['expr']}": one["expr"] for panel in panels for one in panel["targets"]}
    assert asked
    assert [title for title, expression in asked.items() if not prometheus.query(filled_in(expression))] == []


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.name)
def test_every_variable_of_a_dashboard_has_values(prometheus: Prometheus, file: Path) -> None:
    variables = [one for one in json.loads(file.read_text())["templating"]["list"] if one["type"] == "query"]
    for variable in variables:
        found = LABEL_VALUES.fullmatch(variable["definition"])
        assert found, variable["definition"]
        values = [
            one["metric"].get(found[2]) for one in prometheus.query(f"count by ({found[2]}) ({filled_in(found[1])})")
        ]
        assert values, variable["definition"]
        assert all(values), variable["definition"]


@pytest.mark.parametrize("rule", RECORDED, ids=[rule["record"] for rule in RECORDED])
def test_a_recorded_series_is_there(prometheus: Prometheus, rule: dict[str, Any]) -> None:
    assert prometheus.query(rule["record"])


@pytest.mark.parametrize("rule", ALERTS, ids=[rule["alert"] for rule in ALERTS])
def test_an_alert_can_be_asked_and_looks_at_what_is_there(prometheus: Prometheus, rule: dict[str, Any]) -> None:
    prometheus.query(rule["expr"])
    selectors = SELECTOR.findall(rule["expr"])
    assert selectors
    assert [selector for selector in selectors if not prometheus.query(selector)] == []


def test_prometheus_evaluates_all_rules_without_an_error(prometheus: Prometheus) -> None:
    rules = list(chain.from_iterable(group["rules"] for group in prometheus.get("rules")["groups"]))
    assert len(rules) == len(RECORDED) + len(ALERTS)
    assert [rule["name"] for rule in rules if rule.get("lastError")] == []


def test_no_alert_fires_on_a_platform_that_is_well(prometheus: Prometheus) -> None:
    assert prometheus.query('ALERTS{alertstate="firing"}') == []
