"""A report as one self-contained page: no script, no request, readable by screen readers, light and dark."""

import io
from collections.abc import Iterator
from itertools import islice
from typing import IO

from jinja2 import Environment, PackageLoader, StrictUndefined

from taskflow_worker.types.report.data import STATUSES, Row, Summary

SHOWN_ROWS = 500
CHART_WIDTH = 960
CHART_HEIGHT = 160


def write(summary: Summary, rows: Iterator[Row], output: IO[bytes]) -> None:
    """Write the page piece by piece."""
    environment = Environment(
        loader=PackageLoader("taskflow_worker.types", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["seconds"] = seconds
    text = io.TextIOWrapper(output, encoding="utf-8", errors="replace", write_through=True)
    stream = environment.get_template("page.html").stream(
        summary=summary,
        statuses=STATUSES,
        bars=list(_segments(summary)),
        peak=_peak(summary),
        width=CHART_WIDTH,
        height=CHART_HEIGHT,
        rows=islice(rows, SHOWN_ROWS),
        shown=min(summary.total.total, SHOWN_ROWS),
    )
    stream.enable_buffering(50)
    for piece in stream:
        text.write(piece)
    text.detach()


def seconds(value: float | None) -> str:
    """Return a duration for people: 12 ms, 3.4 s, 5 min 10 s, 2 h 3 min; a dash for none."""
    if value is None:
        return "-"
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 60:
        return f"{value:.1f} s"
    if value < 3600:
        return f"{value // 60:.0f} min {value % 60:.0f} s"
    return f"{value // 3600:.0f} h {value % 3600 // 60:.0f} min"


def _peak(summary: Summary) -> int:
    return max((sum(bar.counts.values()) for bar in summary.bars), default=0)


def _segments(summary: Summary) -> Iterator[tuple[str, float, float, float, float, str]]:
    """Yield the chart's rectangles: status, x, y, width, height, and what a pointer over it says."""
    peak = max(_peak(summary), 1)
    width = CHART_WIDTH / max(len(summary.bars), 1)
    for number, bar in enumerate(summary.bars):
        y = float(CHART_HEIGHT)
        for status, count in bar.counts.items():
            if count:
                height = count / peak * CHART_HEIGHT
                y -= height
                label = f"{bar.start:%Y-%m-%d %H:%M}: {count} {status}"
                yield status, number * width, y, max(width - 1, 0.5), height, label
