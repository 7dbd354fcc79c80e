import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from taskflow_cli.display import Lines, standing
from taskflow_cli.output import age, print_json_array, print_task
from taskflow_client.models import Task

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def task(**changes: Any) -> Task:
    fields: dict[str, Any] = {
        "id": "01936f5e-7c1a-7d3e-9c55-0242ac120002",
        "type": "SYNC",
        "title": "",
        "queue": "default",
        "status": "RUNNING",
        "state": "RUNNING",
        "payload": {},
        "result": None,
        "error": None,
        "progress": None,
        "attempt": 1,
        "max_attempts": 3,
        "cancel_requested": False,
        "created_at": "2026-01-01T00:00:00Z",
        "started_at": None,
        "finished_at": None,
    }
    return Task.model_validate(fields | changes)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(-5, "0s"), (59, "59s"), (60, "1m"), (3_599, "59m"), (7_200, "2h"), (172_800, "2d")],
)
def test_an_age_is_told_in_its_largest_whole_unit(seconds: int, expected: str) -> None:
    assert age(NOW - timedelta(seconds=seconds), now=NOW) == expected


@pytest.mark.parametrize("documents", [[], [{"a": 1}], [{"a": "é"}, {"b": None}]])
def test_an_array_is_json_however_many_documents_come(
    documents: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    print_json_array(iter(documents))
    assert json.loads(capsys.readouterr().out) == documents


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, (0.0, None, ""), id="nothing reported yet"),
        pytest.param({"progress": {"done": 3, "total": None, "message": "m"}}, (3.0, None, "m"), id="no total"),
        pytest.param({"progress": {"done": 3, "total": 4}}, (3.0, 4.0, ""), id="a total"),
        pytest.param({"progress": {"done": 0, "total": 0}}, (0.0, None, ""), id="a total of nothing"),
        pytest.param(
            {"status": "COMPLETED", "progress": {"done": 3, "total": 4, "message": "m"}}, (1.0, 1.0, ""), id="completed"
        ),
        pytest.param(
            {"status": "FAILED", "progress": {"done": 3, "total": 4}, "error": {"message": "why\x1b"}},
            (3.0, 4.0, "why "),
            id="failed on the way",
        ),
        pytest.param({"status": "FAILED", "error": {"code": "c"}}, (0.0, 1.0, "c"), id="failed at once"),
    ],
)
def test_where_a_task_stands(changes: dict[str, Any], expected: tuple[float, float | None, str]) -> None:
    assert standing(task(**changes)) == expected


def test_a_line_is_printed_only_when_something_changed(capsys: pytest.CaptureFixture[str]) -> None:
    half = task(progress={"done": 1, "total": 2, "message": "half"})
    with Lines() as display:
        for seen in (task(), task(), half, half, task(status="COMPLETED", state="COMPLETED")):
            display.show(seen)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(maxsplit=2)[2] for line in lines] == ["RUNNING      -", "RUNNING    50% half", "COMPLETED 100%"]


def test_a_task_is_shown_with_its_error_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    failed = task(
        status="FAILED",
        state="FAILED",
        error={"code": "boom", "message": "it broke", "traceback": "line 1\nline 2\x07"},
    )
    print_task(failed)
    out = capsys.readouterr().out
    assert "error     boom: it broke\ntraceback\nline 1\nline 2 \n" in out


def test_a_running_task_says_how_far_it_is_and_that_it_was_asked_to_stop(capsys: pytest.CaptureFixture[str]) -> None:
    print_task(task(cancel_requested=True, progress={"done": 40, "total": None, "message": "records"}))
    out = capsys.readouterr().out
    assert "state     RUNNING (asked to stop)" in out
    assert "progress  40 of ? records" in out
