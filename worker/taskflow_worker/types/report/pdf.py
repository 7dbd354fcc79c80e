"""A report as a PDF to print or to send: summary, bar chart, failures, page numbers.

The PDF's own fonts know Western European letters; others become a question mark here, and stay whole in the rest.
"""

from collections.abc import Iterator
from html import escape
from typing import IO, Any

from reportlab.graphics.charts.barcharts import VerticalBarChart
from reportlab.graphics.charts.legends import Legend
from reportlab.graphics.shapes import Drawing
from reportlab.lib.colors import Color, HexColor
from reportlab.lib.pagesizes import A4, landscape
from reportlab.lib.styles import ParagraphStyle, getSampleStyleSheet
from reportlab.lib.units import mm
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Flowable, Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

from taskflow_worker.types.report.data import STATUSES, Row, Summary
from taskflow_worker.types.report.html import seconds

COLORS = {
    "PENDING": "#8c959f",
    "RUNNING": "#0969da",
    "COMPLETED": "#1a7f37",
    "FAILED": "#cf222e",
    "CANCELED": "#9a6700",
}
LINE = HexColor("#d0d7de")
HEAD = HexColor("#f0f3f6")
MAX_LABELS = 24
FONT_SIZE = 8.5
WIDTH = landscape(A4)[0] - 36 * mm


def write(summary: Summary, _rows: Iterator[Row], output: IO[bytes]) -> None:
    """Write the PDF, A4 across; the list of tasks is left to the other formats."""
    title = _known(summary.title)
    document = SimpleDocTemplate(
        output,
        pagesize=landscape(A4),
        leftMargin=18 * mm,
        rightMargin=18 * mm,
        topMargin=16 * mm,
        bottomMargin=18 * mm,
        title=title,
        author="TaskFlow",
        lang="en",
    )
    style = getSampleStyleSheet()
    story: list[Flowable] = [
        Paragraph(escape(title), style["Title"]),
        Paragraph(_sentence(summary), style["Normal"]),
        Paragraph("By type", style["Heading2"]),
        _types(summary),
        Paragraph(f"Created by {summary.step}", style["Heading2"]),
        _chart(summary),
        Paragraph("Failures", style["Heading2"]),
        _failures(summary, ParagraphStyle("Cell", style["Normal"], fontSize=FONT_SIZE, leading=FONT_SIZE + 2)),
    ]

    def footer(canvas: Canvas, doc: Any) -> None:
        canvas.setFont("Helvetica", 8)
        canvas.drawString(18 * mm, 10 * mm, title[:120])
        canvas.drawRightString(landscape(A4)[0] - 18 * mm, 10 * mm, f"Page {doc.page}")

    document.build(story, onFirstPage=footer, onLaterPages=footer)


def _known(text: str) -> str:
    return text.encode("cp1252", "replace").decode("cp1252")


def _sentence(summary: Summary) -> str:
    filters = "".join(f", {name} {value}" for name, value in summary.filters.items())
    period = f"{summary.start:%Y-%m-%d %H:%M %Z} to {summary.end:%Y-%m-%d %H:%M %Z}"
    return escape(_known(f"{summary.total.total} tasks created from {period}{filters}."))


def _types(summary: Summary) -> Table:
    spreads = ["Ran p50", "p95", "max", "Waited p50", "p95", "max"]
    lines: list[list[str]] = [["Type", "Total", *(status.title() for status in STATUSES), *spreads]]
    for group in [*summary.types, summary.total]:
        durations = [_known(seconds(value)) for value in (*group.ran, *group.waited)]
        lines.append([_known(group.name), str(group.total), *map(str, group.counts.values()), *durations])
    table = Table(lines, repeatRows=1, hAlign="LEFT")
    table.setStyle(_style([("ALIGN", (1, 0), (-1, -1), "RIGHT"), ("FONTNAME", (0, -1), (-1, -1), "Helvetica-Bold")]))
    return table


def _failures(summary: Summary, body: ParagraphStyle) -> Flowable:
    if not summary.failures:
        return Paragraph("No task failed.", body)
    lines: list[list[Any]] = [["Type", "Code", "Count", "Example"]]
    for failure in summary.failures:
        words = [Paragraph(escape(_known(text)), body) for text in (failure.type, failure.code, failure.example)]
        lines.append([words[0], words[1], str(failure.times), words[2]])
    table = Table(lines, repeatRows=1, hAlign="LEFT", colWidths=[38 * mm, 50 * mm, 18 * mm, WIDTH - 106 * mm])
    table.setStyle(_style([("ALIGN", (2, 0), (2, -1), "RIGHT")]))
    return table


def _style(more: list[tuple[Any, ...]]) -> TableStyle:
    return TableStyle(
        [
            ("FONTSIZE", (0, 0), (-1, -1), FONT_SIZE),
            ("FONTNAME", (0, 0), (-1, 0), "Helvetica-Bold"),
            ("BACKGROUND", (0, 0), (-1, 0), HEAD),
            ("LINEBELOW", (0, 0), (-1, -1), 0.5, LINE),
            ("VALIGN", (0, 0), (-1, -1), "TOP"),
            *more,
        ]
    )


def _chart(summary: Summary) -> Flowable:
    if not summary.total.total:
        return Spacer(1, 4 * mm)
    drawing = Drawing(WIDTH, 62 * mm)
    chart: Any = VerticalBarChart()
    chart.x, chart.y, chart.width, chart.height = 12 * mm, 16 * mm, WIDTH - 14 * mm, 38 * mm
    chart.data = [[bar.counts[status] for bar in summary.bars] for status in STATUSES]
    chart.categoryAxis.style = "stacked"
    every = -(-len(summary.bars) // MAX_LABELS)
    form = "%d %b %H:%M" if summary.step == "hour" else "%d %b"
    chart.categoryAxis.categoryNames = [
        f"{bar.start:{form}}" if number % every == 0 else "" for number, bar in enumerate(summary.bars)
    ]
    chart.categoryAxis.labels.angle = 45
    chart.categoryAxis.labels.boxAnchor = "ne"
    chart.categoryAxis.labels.fontSize = 6.5
    chart.categoryAxis.visibleTicks = False
    chart.valueAxis.valueMin = 0
    chart.valueAxis.labelTextFormat = "%d"
    chart.valueAxis.labels.fontSize = 7
    chart.barSpacing, chart.groupSpacing = 0, 1
    for number, status in enumerate(STATUSES):
        chart.bars[number].fillColor = HexColor(COLORS[status])
        chart.bars[number].strokeColor = None
    drawing.add(chart)
    drawing.add(_legend())
    return drawing


def _legend() -> Any:
    legend: Any = Legend()
    legend.x, legend.y, legend.boxAnchor, legend.alignment = 12 * mm, 60 * mm, "nw", "right"
    legend.columnMaximum, legend.deltax, legend.fontSize, legend.dx, legend.dy = 1, 30 * mm, 7.5, 6, 6
    pairs: list[tuple[Color, str]] = [(HexColor(COLORS[status]), status.title()) for status in STATUSES]
    legend.colorNamePairs = pairs
    return legend
