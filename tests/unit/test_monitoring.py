"""What is monitored: every metric is documented, every alert has its runbook, and labels stay bounded."""

import json
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest

import expositions
from taskflow_core.measures import MAX_NAMES, OTHER, Known

ROOT = Path(__file__).parents[2]
FILES = ROOT / "charts/taskflow/files/monitoring"
RULES = yaml.safe_load((FILES / "rules.yaml").read_text())
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]
DASHBOARDS = sorted((FILES / "dashboards").glob("*.json"))
DOCS = (ROOT / "docs/monitoring.md").read_text()
RUNBOOKS = (ROOT / "docs/runbooks.md").read_text()
NAME = re.compile(r"\b(?:taskflow|process)_[a-z0-9_]+\b")
ROW = re.compile(r"^\| `(taskflow_[a-z_]+)` \| (\w+) \| ([a-z_, ]*)\|", re.MULTILINE)
ENDINGS = ("_bucket", "_count", "_sum")


def names() -> set[str]:
    """Return every name that Prometheus may store, and the labels of alerts and series about ourselves."""
    families = list(chain.from_iterable(expositions.told().values()))
    found = {expositions.name_of(family) for family in families}
    histograms = {family.name for family in families if family.type == "histogram"}
    return found | {name + ending for name in histograms for ending in ENDINGS}


def queries(dashboard: dict[str, Any]) -> Iterator[str]:
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["definition"]


def test_every_metric_is_in_the_docs_with_its_kind_and_labels_and_no_other() -> None:
    told = {
        expositions.name_of(family): (family.type, expositions.labels_of(family))
        for family in chain.from_iterable(expositions.told().values())
        if family.name.startswith("taskflow_")
    }
    documented = {
        name: (kind, frozenset(label for label in labels.replace(" ", "").split(",") if label))
        for name, kind, labels in ROW.findall(DOCS)
    }
    assert documented == told


@pytest.mark.parametrize("file", [FILES / "rules.yaml", *DASHBOARDS], ids=lambda file: file.name)
def test_every_metric_that_is_asked_for_is_told(file: Path) -> None:
    loaded = json.loads(file.read_text()) if file.suffix == ".json" else None
    asked = queries(loaded) if loaded else (rule["expr"] for group in RULES["groups"] for rule in group["rules"])
    used = set(chain.from_iterable(NAME.findall(expression) for expression in asked))
    assert used
    assert used - names() == set()


def test_every_metric_that_is_told_is_shown_or_watched() -> None:
    loaded = [json.loads(file.read_text()) for file in DASHBOARDS]
    asked = chain((rule["expr"] for rule in ALERTS), chain.from_iterable(map(queries, loaded)))
    used = {re.sub("_(bucket|count|sum)$", "", name) for name in chain.from_iterable(map(NAME.findall, asked))}
    assert {name for name, _, _ in ROW.findall(DOCS)} - used == set()


@pytest.mark.parametrize("alert", ALERTS, ids=[alert["alert"] for alert in ALERTS])
def test_an_alert_says_what_it_means_and_leads_to_its_runbook(alert: dict[str, Any]) -> None:
    name, told = alert["alert"], alert["annotations"]
    assert alert["labels"]["severity"] in {"critical", "warning"}
    assert set(told) == {"summary", "description", "runbook_url"}
    assert told["runbook_url"] == f"docs/runbooks.md#{name.lower()}"
    section = re.search(rf"^### {name}\n(.*?)(?=^#|\Z)", RUNBOOKS, re.MULTILINE | re.DOTALL)
    assert section, f"docs/runbooks.md has no section {name}"
    assert re.findall(r"^\*\*(.+?)\.\*\*", section[1], re.MULTILINE) == ["Means", "How bad", "Look", "Do"]
    assert f"| [{name}](runbooks.md#{name.lower()}) | {alert['labels']['severity']} |" in DOCS


def test_there_is_no_runbook_of_an_alert_that_does_not_exist() -> None:
    assert set(re.findall(r"^### (\w+)$", RUNBOOKS, re.MULTILINE)) == {alert["alert"] for alert in ALERTS}


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.name)
def test_a_dashboard_fits_any_grafana(file: Path) -> None:
    dashboard = json.loads(file.read_text())
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert panels
    assert dashboard["uid"] == f"taskflow-{file.stem}"
    asked = [panel["datasource"] for panel in panels] + [
        one["datasource"] for panel in panels for one in panel["targets"]
    ]
    asked += [one["datasource"] for one in dashboard["templating"]["list"] if one["type"] == "query"]
    assert {json.dumps(source) for source in asked} == {'{"type": "prometheus", "uid": "${datasource}"}'}
    assert next(one["name"] for one in dashboard["templating"]["list"]) == "datasource"
    assert [panel["title"] for panel in panels if not panel["fieldConfig"]["defaults"].get("unit")] == []
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.name)
def test_no_panel_of_a_dashboard_lies_over_another(file: Path) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in json.loads(file.read_text())["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        for cell in ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])):
            assert taken.setdefault(cell, panel["title"]) == panel["title"]


def test_types_that_a_worker_does_not_know_share_one_label() -> None:
    told = generate_latest(expositions.worker("ECHO", "MADE-UP-1", "MADE-UP-2", types=["ECHO"])).decode()
    assert 'taskflow_tasks_finished_total{status="COMPLETED",type="ECHO"} 1.0' in told
    assert 'taskflow_tasks_finished_total{status="COMPLETED",type="other"} 2.0' in told
    assert 'taskflow_task_wait_seconds_count{type="other"} 2.0' in told
    assert "MADE-UP" not in told


def test_known_names_beyond_the_cap_share_one_label() -> None:
    known = Known((f"type-{number}" for number in range(MAX_NAMES + 50)), str)
    assert (known["type-0"], known[f"type-{MAX_NAMES}"], known["never seen"]) == ("type-0", OTHER, OTHER)
    assert len(known) == MAX_NAMES + 1
