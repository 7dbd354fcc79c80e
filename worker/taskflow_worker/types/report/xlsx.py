"""A report as a workbook: a sheet each for the summary, the timeline, the failures and the tasks."""

import tempfile
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import IO, Any

import xlsxwriter

from taskflow_worker.types.report.data import Row, Summary
from taskflow_worker.types.report.text import (
    Cell,
    failures_table,
    safe,
    summary_table,
    tasks_table,
    timeline_table,
)

TIMES = {"created_at", "started_at", "finished_at"}
WIDTHS = {"id": 38, "title": 40, "error_message": 60, "example": 60, "start": 20, "type": 20, "error_code": 20}


def write(summary: Summary, rows: Iterator[Row], output: IO[bytes]) -> None:
    """Write the workbook row by row: memory does not grow with the list."""
    with tempfile.TemporaryDirectory() as folder:
        options = {
            "constant_memory": True,
            "tmpdir": folder,
            "strings_to_formulas": False,
            "strings_to_urls": False,
            "remove_timezone": True,
        }
        with xlsxwriter.Workbook(output, options) as book:
            book.set_properties({"title": summary.title, "created": summary.made_at.replace(tzinfo=None)})
            _sheet(book, "Summary", summary_table(summary), _preamble(summary))
            _sheet(book, "Timeline", timeline_table(summary), [])
            _sheet(book, "Failures", failures_table(summary), [])
            _sheet(book, "Tasks", tasks_table(summary, rows), [])


def _preamble(summary: Summary) -> list[list[Cell]]:
    period = f"{summary.start:%Y-%m-%d %H:%M} to {summary.end:%Y-%m-%d %H:%M %Z}"
    lines: list[list[Cell]] = [[summary.title], ["period", period]]
    lines += [[name, value] for name, value in summary.filters.items()]
    return [*lines, [summary.cut], []] if summary.cut else [*lines, []]


def _sheet(book: Any, name: str, table: Iterable[list[Cell]], preamble: list[list[Cell]]) -> None:
    sheet = book.add_worksheet(name)
    bold = book.add_format({"bold": True})
    time = book.add_format({"num_format": "yyyy-mm-dd hh:mm:ss"})
    for number, line in enumerate(preamble):
        sheet.write_row(number, 0, [safe(cell) for cell in line], bold if number == 0 else None)
    first = len(preamble)
    sheet.freeze_panes(first + 1, 0)
    header: list[str] = []
    for number, row in enumerate(table, start=first):
        if number == first:
            header = [str(cell) for cell in row]
            for column, title in enumerate(header):
                sheet.set_column(column, column, WIDTHS.get(title, 20 if title in TIMES else 12))
            sheet.write_row(number, 0, header, bold)
            continue
        for column, cell in enumerate(row):
            _write(sheet, number, column, cell, time if header[column] in TIMES else None)


def _write(sheet: Any, number: int, column: int, cell: Cell, time: Any) -> None:
    if isinstance(cell, str) and time is not None:
        sheet.write_datetime(number, column, datetime.fromisoformat(cell), time)
    elif isinstance(cell, str):
        sheet.write_string(number, column, safe(cell))
    elif cell is not None:
        sheet.write_number(number, column, cell)
