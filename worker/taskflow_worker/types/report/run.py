"""A whole report: count, write each file to disk, check it, store it with the completion of the task."""

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from os import SEEK_END
from typing import IO

from taskflow_core import files
from taskflow_core.handlers import Context, NonRetryable
from taskflow_worker.types.report import data, html, pdf, text, xlsx
from taskflow_worker.types.report.data import Row, Summary
from taskflow_worker.types.report.models import Format, ReportFile, ReportPayload, ReportResult

MAX_FILE_BYTES = 32 * 1024 * 1024
Writer = Callable[[Summary, Iterator[Row], IO[bytes]], None]
CSV = "text/csv; charset=utf-8"
FILES: dict[Format, list[tuple[str, str, Writer]]] = {
    "csv": [
        ("report-summary.csv", CSV, text.csv_writer(text.summary_table)),
        ("report-timeline.csv", CSV, text.csv_writer(text.timeline_table)),
        ("report-failures.csv", CSV, text.csv_writer(text.failures_table)),
        ("report-tasks.csv", CSV, text.write_tasks),
    ],
    "xlsx": [("report.xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", xlsx.write)],
    "html": [("report.html", "text/html; charset=utf-8", html.write)],
    "pdf": [("report.pdf", "application/pdf", pdf.write)],
}


async def run(ctx: Context, payload: ReportPayload) -> ReportResult:
    """Do what `write_report` says."""
    wanted = [file for form in payload.format for file in FILES[form]]
    with ExitStack() as opened:
        spool = opened.enter_context(tempfile.TemporaryFile())
        async with ctx.new_session() as session:
            summary = await data.collect(session, ctx, payload, spool)
        outputs: list[IO[bytes]] = []
        for number, (name, _, writer) in enumerate(wanted):
            ctx.check_cancel()
            ctx.progress(number, len(wanted), f"writing {name}")
            outputs.append(opened.enter_context(tempfile.TemporaryFile()))
            await asyncio.to_thread(writer, summary, data.rows(spool), outputs[-1])
        # stored only now: the completing transaction is not to sit idle while files are written
        made = [
            await _store(ctx, name, media_type, output)
            for (name, media_type, _), output in zip(wanted, outputs, strict=True)
        ]
    ctx.progress(len(wanted), len(wanted), "done")
    ctx.log.info("report.written", rows=summary.total.total, files=len(made))
    return ReportResult(
        files=made,
        rows=summary.total.total,
        listed=summary.listed,
        totals=summary.total.counts,
        period_from=summary.start,
        period_to=summary.end,
        first_lines=text.first_lines(summary),
    )


async def _store(ctx: Context, name: str, media_type: str, output: IO[bytes]) -> ReportFile:
    if output.seek(0, SEEK_END) > MAX_FILE_BYTES:
        raise NonRetryable(
            f"{name} is larger than {MAX_FILE_BYTES} bytes; narrow the period or the filters", code="report_too_large"
        )
    output.seek(0)
    written = await files.write(await ctx.session(), ctx.task_id, name=name, media_type=media_type, source=output)
    return ReportFile(name=name, media_type=media_type, size=written.size, sha256=written.sha256)
