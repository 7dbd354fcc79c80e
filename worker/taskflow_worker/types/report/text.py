"""A report as tables of cells, and the tables as CSV. No cell can become a formula when a spreadsheet opens it."""

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator
from typing import IO

from taskflow_worker.types.report.data import STATUSES, Row, Summary

Cell = str | int | float | None
UNPRINTABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
# The full-width forms are read as formulas by spreadsheets in East Asian locales.
FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")


def safe(value: Cell) -> Cell:
    """Return a cell that a spreadsheet shows as it is: one line, no control characters, quoted before = + - @."""
    if not isinstance(value, str):
        return value
    value = UNPRINTABLE.sub(" ", value)
    return "'" + value if FORMULA.match(value) else value


def summary_table(summary: Summary) -> Iterator[list[Cell]]:
    """Yield a header, a row for each type, and a row for all."""
    spreads = [f"{name}_{of}_s" for name in ("ran", "waited") for of in ("p50", "p95", "max")]
    yield ["type", "total", *STATUSES, *spreads]
    for group in [*summary.types, summary.total]:
        yield [group.name, group.total, *group.counts.values(), *map(_rounded, [*group.ran, *group.waited])]


def timeline_table(summary: Summary) -> Iterator[list[Cell]]:
    """Yield a header and a row for each hour or day."""
    yield ["start", "created", *STATUSES]
    for bar in summary.bars:
        yield [f"{bar.start:%Y-%m-%dT%H:%MZ}", sum(bar.counts.values()), *bar.counts.values()]


def failures_table(summary: Summary) -> Iterator[list[Cell]]:
    """Yield a header and a row for each kind of failure, the most frequent first."""
    yield ["type", "code", "count", "example"]
    for failure in summary.failures:
        yield list(failure)


def tasks_table(summary: Summary, rows: Iterable[Row]) -> Iterator[list[Cell]]:
    """Yield a header, a row for each listed task, and a last row that says so when the list is cut."""
    yield list(Row._fields)
    for row in rows:
        yield list(row._replace(waited_s=_rounded(row.waited_s), ran_s=_rounded(row.ran_s)))
    if summary.cut:
        yield [summary.cut]


def write_csv(table: Iterable[list[Cell]], output: IO[bytes]) -> None:
    """Write a table as CSV (RFC 4180) in UTF-8."""
    text = io.TextIOWrapper(output, encoding="utf-8", newline="", write_through=True)
    csv.writer(text).writerows([safe(cell) for cell in row] for row in table)
    text.detach()


def first_lines(summary: Summary, count: int = 5) -> list[str]:
    """Return the first lines of the summary as CSV."""
    output = io.BytesIO()
    write_csv(summary_table(summary), output)
    return output.getvalue().decode().splitlines()[:count]


def csv_writer(table: Callable[[Summary], Iterable[list[Cell]]]) -> Callable[[Summary, Iterator[Row], IO[bytes]], None]:
    """Return a writer of one of the tables that need no list of tasks."""
    return lambda summary, _rows, output: write_csv(table(summary), output)


def write_tasks(summary: Summary, rows: Iterator[Row], output: IO[bytes]) -> None:
    """Write the list of tasks as CSV."""
    write_csv(tasks_table(summary, rows), output)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
