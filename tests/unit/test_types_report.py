"""REPORT without IO: periods, cells that no spreadsheet runs, words for durations."""

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from taskflow_worker.types.report.html import seconds
from taskflow_worker.types.report.models import ReportPayload
from taskflow_worker.types.report.text import safe, write_csv

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
any_text = st.text(st.characters(), max_size=30)


@pytest.mark.parametrize(
    ("fields", "start", "step"),
    [
        ({}, NOW - timedelta(hours=24), "hour"),
        ({"last": "7d"}, NOW - timedelta(days=7), "day"),
        ({"last": "48h"}, NOW - timedelta(days=2), "hour"),
        ({"last": "7d", "group_by": "hour"}, NOW - timedelta(days=7), "hour"),
    ],
)
def test_a_period_ends_now_unless_it_is_given(fields: dict[str, Any], start: datetime, step: str) -> None:
    payload = ReportPayload.model_validate(fields)
    assert payload.bounds(NOW) == (start, NOW)
    assert payload.step() == step


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"last": "24h", "period": {"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"}}, "not both"),
        ({"period": {"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"}}, "must lie after"),
        ({"period": {"from": "2024-01-01T00:00:00Z", "to": "2026-01-01T00:00:00Z"}}, "at most 366 days"),
        ({"period": {"from": "2026-01-01T00:00:00", "to": "2026-01-02T00:00:00"}}, "timezone"),
        ({"period": {"from": "0001-01-01T00:00:00+14:00", "to": "0001-01-02T00:00:00Z"}}, "between the years"),
        ({"last": "9999d"}, "at most 366 days"),
        ({"last": "0d"}, "last"),
        ({"last": "1w"}, "last"),
        ({"last": "60d", "group_by": "hour"}, "use day"),
        ({"format": []}, "format"),
        ({"format": "docx"}, "format"),
        ({"status": "DONE"}, "status"),
        ({"title": "a\nb"}, "title"),
        ({"extra": 1}, "extra"),
    ],
)
def test_a_payload_that_would_not_work_is_refused_by_field(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ReportPayload.model_validate(fields)
    assert words in str(caught.value)


@pytest.mark.parametrize("by_alias", [True, False])
def test_a_payload_survives_being_dumped_and_read_again(by_alias: bool) -> None:
    payload = ReportPayload.model_validate(
        {"period": {"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00+01:00"}, "format": "pdf"}
    )
    assert ReportPayload.model_validate(payload.model_dump(mode="json", by_alias=by_alias)) == payload
    assert ReportPayload.model_validate({"format": ["csv", "pdf", "csv"]}).format == ["csv", "pdf"]


@given(
    st.sampled_from("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"), st.sampled_from(["", " ", "\n", "\x00", "\u00a0"]), any_text
)
def test_no_cell_starts_a_formula(first: str, before: str, rest: str) -> None:
    cell = safe(before + first + rest)
    assert isinstance(cell, str)
    assert cell.strip()[:1] not in tuple("=+-@\uff1d\uff0b\uff0d\uff20")


@given(any_text)
def test_a_cell_is_one_line_that_can_be_encoded(value: str) -> None:
    cell = safe(value)
    assert isinstance(cell, str)
    assert not {*map(chr, range(32)), "\x7f"} & set(cell)
    cell.encode()


@given(st.text(st.characters(categories=["L", "N", "Zs"]), max_size=30))
def test_harmless_text_stays_as_it_is(value: str) -> None:
    assert safe(value) == value


@pytest.mark.parametrize("value", [-1, -1.5, None, 0])
def test_numbers_stay_numbers(value: float | None) -> None:
    assert safe(value) == value


@given(st.lists(st.lists(any_text | st.integers() | st.none(), min_size=2, max_size=4), max_size=5))
def test_csv_reads_back_as_the_safe_cells(table: list[list[Any]]) -> None:
    output = io.BytesIO()
    write_csv(table, output)
    read = list(csv.reader(io.StringIO(output.getvalue().decode(), newline="")))
    assert read == [["" if cell is None else str(safe(cell)) for cell in row] for row in table]


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "-"), (0.0123, "12 ms"), (3.42, "3.4 s"), (310, "5 min 10 s"), (7400, "2 h 3 min"), (0, "0 ms")],
)
def test_durations_are_put_into_words(value: float | None, words: str) -> None:
    assert seconds(value) == words
