"""REPORT over real tasks in PostgreSQL: right numbers, files that open, nothing of other owners."""

import csv
import hashlib
import io
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any
from uuid import UUID

import openpyxl
import pypdf
import pytest
from sqlalchemy import text

from fake_context import FakeContext, add_task, add_user, context, run
from taskflow_core import files
from taskflow_core.actors import Actor
from taskflow_core.database import Sessions
from taskflow_core.errors import NotFound
from taskflow_core.handlers import NonRetryable, TaskCanceled
from taskflow_core.identifiers import new_id
from taskflow_core.models.users import Role
from taskflow_worker.types.report import data
from taskflow_worker.types.report import run as report_run
from taskflow_worker.types.report.task import write_report

START = datetime(2026, 10, 1, 8, 0, tzinfo=UTC)
PERIOD = {"from": "2026-10-01T08:00:00Z", "to": "2026-10-01T14:00:00Z"}


def id_at(moment: datetime) -> UUID:
    return UUID(int=(int(moment.timestamp() * 1000) << 80) | (new_id().int & ((1 << 80) - 1)))


async def finished(
    sessions: Sessions, owner: UUID, type_: str, *, hour: int, status: str = "COMPLETED", ran_s: float = 1, **more: Any
) -> UUID:
    """Insert a task created at that hour, claimed 2 s after it was due, finished `ran_s` later."""
    created = START + timedelta(hours=hour)
    claimed = created + timedelta(seconds=2)
    times: dict[str, Any] = {"run_at": created}
    if status in {"COMPLETED", "FAILED"}:
        times |= {
            "claimed_at": claimed,
            "started_at": claimed,
            "finished_at": claimed + timedelta(seconds=ran_s),
            "attempt": 1,
        }
    if status == "CANCELED":
        times["finished_at"] = claimed
    return await add_task(sessions, owner, type_, id=id_at(created), status=status, **times, **more)


@pytest.fixture
async def ctx(sessions: Sessions) -> FakeContext:
    """Return a context whose owner has eight tasks in the period, one before it and one after."""
    ctx = await context(sessions, "REPORT")
    for number in range(4):
        await finished(sessions, ctx.owner_id, "EMAIL", hour=number % 2, ran_s=number + 1, title=f"Mail {number}")
    error = {"code": "smtp_rejected", "message": "550 no such user"}
    await finished(
        sessions, ctx.owner_id, "EMAIL", hour=3, status="FAILED", ran_s=10, error=error, title="=HYPERLINK(1)"
    )
    await finished(sessions, ctx.owner_id, "SYNC", hour=3, status="FAILED", ran_s=0.5, title="Grüße <b> \u4e16")
    await finished(sessions, ctx.owner_id, "SYNC", hour=5, status="PENDING", queue="low")
    await finished(sessions, ctx.owner_id, "SYNC", hour=5, status="CANCELED")
    await finished(sessions, ctx.owner_id, "SYNC", hour=-1)
    await finished(sessions, ctx.owner_id, "SYNC", hour=6)
    stranger = await add_user(sessions)
    await finished(sessions, stranger, "EMAIL", hour=1, title="not yours")
    return ctx


async def content(ctx: FakeContext, name: str) -> bytes:
    actor = Actor(ctx.owner_id, Role.USER)
    return b"".join([piece async for piece in files.read(ctx.new_session, ctx.task_id, name, actor=actor)])


async def table(ctx: FakeContext, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((await content(ctx, name)).decode(), newline="")))


async def test_numbers_are_those_of_the_owners_tasks_in_the_period(ctx: FakeContext) -> None:
    result = await run(ctx, write_report, {"period": PERIOD})
    assert result["rows"] == result["listed"] == 8
    assert result["totals"] == {"PENDING": 1, "RUNNING": 0, "COMPLETED": 4, "FAILED": 2, "CANCELED": 1}
    summary = await table(ctx, "report-summary.csv")
    assert [row["type"] for row in summary] == ["EMAIL", "SYNC", "All types"]
    assert summary[0] == {
        "type": "EMAIL",
        "total": "5",
        "PENDING": "0",
        "RUNNING": "0",
        "COMPLETED": "4",
        "FAILED": "1",
        "CANCELED": "0",
        "ran_p50_s": "3.0",
        "ran_p95_s": "8.8",
        "ran_max_s": "10.0",
        "waited_p50_s": "2.0",
        "waited_p95_s": "2.0",
        "waited_max_s": "2.0",
    }
    assert (summary[1]["ran_p50_s"], summary[2]["ran_max_s"], summary[2]["total"]) == ("0.5", "10.0", "8")
    assert result["first_lines"][1].startswith("EMAIL,5,")
    failures = await table(ctx, "report-failures.csv")
    assert [(row["type"], row["code"], row["count"], row["example"]) for row in failures] == [
        ("EMAIL", "smtp_rejected", "1", "550 no such user"),
        ("SYNC", "unknown", "1", ""),
    ]
    timeline = await table(ctx, "report-timeline.csv")
    assert [(row["start"], row["created"], row["FAILED"]) for row in timeline] == [
        ("2026-10-01T08:00Z", "2", "0"),
        ("2026-10-01T09:00Z", "2", "0"),
        ("2026-10-01T10:00Z", "0", "0"),
        ("2026-10-01T11:00Z", "2", "2"),
        ("2026-10-01T12:00Z", "0", "0"),
        ("2026-10-01T13:00Z", "2", "0"),
    ]


async def test_the_list_is_newest_first_and_holds_no_formula(ctx: FakeContext) -> None:
    await run(ctx, write_report, {"period": PERIOD})
    tasks = await table(ctx, "report-tasks.csv")
    assert [row["created_at"] for row in tasks] == sorted((row["created_at"] for row in tasks), reverse=True)
    assert {row["title"] for row in tasks} >= {"'=HYPERLINK(1)", "Mail 0", "Grüße <b> \u4e16"}
    assert "not yours" not in {row["title"] for row in tasks}
    failed = next(row for row in tasks if row["title"].startswith("'="))
    assert (failed["waited_s"], failed["ran_s"], failed["error_code"]) == ("2.0", "10.0", "smtp_rejected")
    assert failed["error_message"] == "550 no such user"


@pytest.mark.parametrize(
    ("filters", "rows"),
    [({"type": "SYNC"}, 3), ({"status": "FAILED"}, 2), ({"queue": "low"}, 1), ({"type": "EMAIL", "queue": "low"}, 0)],
)
async def test_filters_narrow_every_number(ctx: FakeContext, filters: dict[str, str], rows: int) -> None:
    result = await run(ctx, write_report, {"period": PERIOD, "format": ["csv", "xlsx", "html", "pdf"], **filters})
    assert result["rows"] == sum(result["totals"].values()) == rows
    assert len(await table(ctx, "report-tasks.csv")) == rows


async def test_the_report_does_not_count_itself(ctx: FakeContext) -> None:
    other = await add_task(ctx.sessions, ctx.owner_id, "REPORT")
    result = await run(ctx, write_report, {"last": "1h", "type": "REPORT"})
    assert result["rows"] == 1
    assert (await table(ctx, "report-tasks.csv"))[0]["id"] == str(other)


async def test_the_workbook_opens_with_frozen_headers_and_real_times(ctx: FakeContext) -> None:
    await run(ctx, write_report, {"period": PERIOD, "format": "xlsx", "title": "=1+1"})
    book = openpyxl.load_workbook(io.BytesIO(await content(ctx, "report.xlsx")))
    assert book.sheetnames == ["Summary", "Timeline", "Failures", "Tasks"]
    assert book["Summary"]["A1"].value == "'=1+1"
    assert book["Summary"]["A4"].value == "type"
    assert book["Summary"].freeze_panes == "A5"
    tasks = book["Tasks"]
    assert tasks.freeze_panes == "A2"
    header = [cell.value for cell in tasks[1]]
    rows = [dict(zip(header, (cell.value for cell in row), strict=True)) for row in tasks.iter_rows(min_row=2)]
    assert len(rows) == 8
    assert {cell.data_type for row in tasks.iter_rows() for cell in row} <= {"s", "n", "d", "inlineStr"}
    failed = next(row for row in rows if row["error_code"])
    assert failed["title"] == "'=HYPERLINK(1)"
    assert failed["finished_at"] == (START + timedelta(hours=3, seconds=12)).replace(tzinfo=None)
    assert tasks.column_dimensions["A"].width > 30


class Page(HTMLParser):
    """Collects a page's tags, and checks that they close."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


async def test_the_page_is_whole_without_a_script_or_a_request(ctx: FakeContext) -> None:
    await run(ctx, write_report, {"period": PERIOD, "format": "html", "title": "<script>alert(1)</script>"})
    source = (await content(ctx, "report.html")).decode()
    page = Page()
    page.feed(source)
    assert page.open == []
    names = [name for name, _ in page.tags]
    assert not {"script", "link", "img", "iframe"} & set(names)
    assert not re.search(r"https?://|url\(|@import", source)
    assert "&lt;script&gt;" in source
    assert "Grüße &lt;b&gt; \u4e16" in source
    assert all("scope" in attrs for name, attrs in page.tags if name == "th")
    assert sum(name == "rect" for name in names) - 5 == 5  # five bars have something to show; five are the key
    assert "prefers-color-scheme: dark" in source


async def test_the_pdf_has_its_title_numbers_and_page_numbers(ctx: FakeContext) -> None:
    for number in range(60):
        error = {"code": f"code_{number:02}", "message": "x" * 250}
        await finished(ctx.sessions, ctx.owner_id, "PLUGIN", hour=2, status="FAILED", error=error)
    await run(ctx, write_report, {"period": PERIOD, "format": "pdf", "title": "Wöchentlich <1> \u4e16"})
    reader = pypdf.PdfReader(io.BytesIO(await content(ctx, "report.pdf")))
    pages = [page.extract_text() for page in reader.pages]
    assert len(pages) > 2
    assert [f"Page {number}" in page for number, page in enumerate(pages, start=1)] == [True] * len(pages)
    assert "Wöchentlich <1> ?" in pages[0]
    assert "EMAIL" in pages[0]
    assert "smtp_rejected" in "".join(pages)
    assert reader.metadata is not None
    assert reader.metadata.title == "Wöchentlich <1> ?"


async def test_files_exist_exactly_when_the_attempt_completes(
    ctx: FakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(report_run, "MAX_FILE_BYTES", 3000)
        with pytest.raises(NonRetryable) as caught:
            await run(ctx, write_report, {"period": PERIOD, "format": ["csv", "xlsx"]})
    assert caught.value.code == "report_too_large"
    actor = Actor(ctx.owner_id, Role.USER)
    async with ctx.new_session() as session:
        assert await files.list_files(session, ctx.task_id, actor=actor) == []
    result = await run(ctx, write_report, {"period": PERIOD, "format": ["csv", "xlsx", "html", "pdf"]})
    async with ctx.new_session() as session:
        entries = {entry.name: entry for entry in await files.list_files(session, ctx.task_id, actor=actor)}
    assert sorted(entries) == sorted(file["name"] for file in result["files"])
    for file in result["files"]:
        stored = await content(ctx, file["name"])
        assert (len(stored), entries[file["name"]].size) == (file["size"], file["size"])
        assert hashlib.sha256(stored).hexdigest() == file["sha256"]


async def test_a_long_list_is_cut_and_every_list_says_so(ctx: FakeContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "LISTED_ROWS", 3)
    monkeypatch.setattr(data, "BATCH", 2)
    result = await run(ctx, write_report, {"period": PERIOD, "format": ["csv", "xlsx"]})
    assert (result["rows"], result["listed"]) == (8, 3)
    sentence = "Only the newest 3 of 8 tasks are listed; narrow the period or the filters."
    tasks = await table(ctx, "report-tasks.csv")
    assert (len(tasks), tasks[-1]["id"]) == (4, sentence)
    book = openpyxl.load_workbook(io.BytesIO(await content(ctx, "report.xlsx")))
    assert book["Tasks"]["A5"].value == sentence
    assert sentence in [cell.value for cell in book["Summary"]["A"]]


async def test_a_canceled_report_leaves_no_file(ctx: FakeContext) -> None:
    ctx.canceled = True
    with pytest.raises(TaskCanceled):
        await run(ctx, write_report, {"period": PERIOD})
    async with ctx.new_session() as session:
        assert await files.list_files(session, ctx.task_id, actor=Actor(ctx.owner_id, Role.USER)) == []


async def test_an_owner_without_tasks_gets_an_empty_report(sessions: Sessions) -> None:
    ctx = await context(sessions, "REPORT")
    result = await run(ctx, write_report, {"period": PERIOD, "format": ["csv", "xlsx", "html", "pdf"]})
    assert (result["rows"], len(result["files"])) == (0, 7)
    assert [row["type"] for row in await table(ctx, "report-summary.csv")] == ["All types"]


async def test_a_file_is_kept_in_pieces_and_read_by_its_owner_and_operators_only(sessions: Sessions) -> None:
    ctx = await context(sessions, "REPORT")
    data = bytes(range(256)) * 10_000
    async with sessions() as session:
        for name, source in (("a.bin", data), ("empty", b"")):
            await files.write(session, ctx.task_id, name=name, media_type="x/y", source=io.BytesIO(source))
        await session.commit()
        assert await session.scalar(text("SELECT count(*) FROM task_files WHERE name = 'a.bin'")) == 3
        owner, stranger = Actor(ctx.owner_id, Role.USER), Actor(await add_user(sessions), Role.USER)
        operator = Actor(stranger.user_id, Role.OPERATOR)
        assert (await files.find(session, ctx.task_id, "a.bin", actor=owner)).size == len(data)
        assert (await files.find(session, ctx.task_id, "empty", actor=operator)).size == 0
        with pytest.raises(NotFound):
            await files.find(session, ctx.task_id, "a.bin", actor=stranger)
        with pytest.raises(NotFound):
            await files.find(session, ctx.task_id, "b.bin", actor=owner)
    assert b"".join([piece async for piece in files.read(sessions, ctx.task_id, "a.bin", actor=operator)]) == data
    assert [piece async for piece in files.read(sessions, ctx.task_id, "a.bin", actor=stranger)] == []
