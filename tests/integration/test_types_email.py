"""EMAIL against a real SMTP server and PostgreSQL: what arrives, once, and what each answer means."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from io import BytesIO
from typing import Any, cast
from uuid import UUID

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlmodel import col

from fake_context import FakeContext, add_task, context, run
from smtp_server import Mailbox, serving
from taskflow_core import files
from taskflow_core.database import Sessions
from taskflow_core.handlers import NonRetryable, Retry, TaskCanceled
from taskflow_core.models.effects import EmailSend
from taskflow_core.settings import Settings, load
from taskflow_worker.types.email import message
from taskflow_worker.types.email.task import send_email
from waiting import eventually_async

MAIL: dict[str, Any] = {"to": ["ada@example.com"], "subject": "Hi", "text": "Hello"}


@pytest.fixture(autouse=True)
def worker_settings(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TASKFLOW_DATABASE_URL", settings.database_url.get_secret_value())
    monkeypatch.setenv("TASKFLOW_REDIS_URL", settings.redis_url.get_secret_value())
    monkeypatch.setenv("TASKFLOW_MAIL_FROM", "TaskFlow <noreply@example.com>")
    load.cache_clear()
    yield
    load.cache_clear()


@pytest.fixture
async def mailbox(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Mailbox]:
    box = Mailbox()
    async with serving(box) as port:
        monkeypatch.setenv("TASKFLOW_SMTP_URL", f"smtp://127.0.0.1:{port}")
        load.cache_clear()
        yield box


def use(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("TASKFLOW_SMTP_URL", url)
    load.cache_clear()


@pytest.fixture
async def ctx(sessions: Sessions) -> FakeContext:
    return await context(sessions, "EMAIL")


async def record_of(ctx: FakeContext) -> EmailSend | None:
    async with ctx.new_session() as session:
        return (await session.scalars(select(EmailSend).where(col(EmailSend.task_id) == ctx.task_id))).one_or_none()


async def refusal(ctx: FakeContext, **fields: Any) -> NonRetryable:
    with pytest.raises(NonRetryable) as caught:
        await run(ctx, send_email, {**MAIL, **fields})
    return caught.value


async def test_a_mail_arrives_with_its_headers_and_bcc_stays_unseen(ctx: FakeContext, mailbox: Mailbox) -> None:
    result = await run(
        ctx,
        send_email,
        {
            "to": ["ada@example.com"],
            "cc": ["bob@example.com"],
            "bcc": ["eve@example.com", "ada@example.com"],
            "reply_to": "help@example.com",
            "subject": "Grüße",
            "text": "Hello",
            "html": "<p>Hello</p>",
            "attachments": [{"name": "päper.txt", "media_type": "text/plain", "content": "aGk="}],
        },
    )
    message = mailbox.message()
    assert result == {
        "message_id": f"<{ctx.task_id}@taskflow>",
        "accepted": ["ada@example.com", "bob@example.com", "eve@example.com"],
        "refused": [],
    }
    assert mailbox.envelopes[0].rcpt_tos == result["accepted"]
    assert mailbox.envelopes[0].mail_from == "noreply@example.com"
    assert message["Message-ID"] == result["message_id"]
    assert (message["From"], message["To"], message["Cc"], message["Reply-To"], message["Subject"]) == (
        "TaskFlow <noreply@example.com>",
        "ada@example.com",
        "bob@example.com",
        "help@example.com",
        "Grüße",
    )
    assert message["Bcc"] is None
    assert message["Date"].datetime.tzinfo is not None
    bodies = [part.get_content_type() for part in message.walk() if not part.is_multipart()]
    assert bodies == ["text/plain", "text/html", "text/plain"]
    attachment = next(message.iter_attachments())
    assert (attachment.get_filename(), attachment.get_content()) == ("päper.txt", "hi")


async def test_another_attempt_does_not_send_again_and_answers_the_same(ctx: FakeContext, mailbox: Mailbox) -> None:
    mailbox.refuse = {"gone@example.com": "550 no such user"}
    payload = {**MAIL, "to": ["ada@example.com", "gone@example.com"]}
    first = await run(ctx, send_email, payload)
    second = await run(ctx, send_email, payload)
    assert first == second
    assert first["accepted"] == ["ada@example.com"]
    assert first["refused"] == [{"address": "gone@example.com", "reason": "550 no such user"}]
    assert len(mailbox.envelopes) == 1


async def test_an_attempt_lost_before_the_mark_sends_again_under_the_same_message_id(
    ctx: FakeContext, mailbox: Mailbox
) -> None:
    await run(ctx, send_email, MAIL)
    async with ctx.new_session() as session:
        await session.execute(update(EmailSend).values(sent_at=None))
        await session.commit()
    await run(ctx, send_email, MAIL)
    assert mailbox.message(0)["Message-ID"] == mailbox.message(1)["Message-ID"]
    assert mailbox.message(0)["Date"] == mailbox.message(1)["Date"]


class Outage(FakeContext):
    """PostgreSQL goes away when the mail is about to be marked as sent, and comes back for the third try."""

    admin: psycopg.Connection
    calls = 0

    def new_session(self) -> AsyncSession:
        self.calls += 1
        allow = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
        name = cast("AsyncEngine", self.sessions.kw["bind"]).url.database
        if self.calls in {2, 4}:
            self.admin.execute(allow.format(sql.Identifier(str(name)), sql.Literal(self.calls == 4)))
            self.admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        return self.sessions()


async def test_an_outage_of_postgresql_after_the_sending_does_not_make_a_second_mail(
    ctx: FakeContext, mailbox: Mailbox, postgres_url: str
) -> None:
    outage = Outage(ctx.sessions, ctx.task_id, ctx.owner_id)
    with psycopg.connect(postgres_url, autocommit=True) as outage.admin:
        await run(outage, send_email, MAIL)
    assert outage.calls == 4
    await run(ctx, send_email, MAIL)
    assert len(mailbox.envelopes) == 1


async def test_templates_render_with_variables_and_are_literal_without(ctx: FakeContext, mailbox: Mailbox) -> None:
    texts = {"subject": "{{ n }} items", "text": "{% for i in l %}{{ i }};{% endfor %}", "html": "<b>{{ n }}</b>"}
    await run(ctx, send_email, {**MAIL, **texts, "variables": {"n": "<3", "l": [1, 2]}})
    message = mailbox.message()
    assert message["Subject"] == "<3 items"
    plain, html = message.get_body(("plain",)), message.get_body(("html",))
    assert plain is not None
    assert html is not None
    assert plain.get_content().strip() == "1;2;"
    assert html.get_content().strip() == "<b>&lt;3</b>"
    await run(await context(ctx.sessions, "EMAIL"), send_email, {**MAIL, **texts})
    assert mailbox.message(1)["Subject"] == "{{ n }} items"


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{{ '%0999999999d'|format(1) }}",
        "{{ 9 ** (9 ** 9) }}",
    ],
)
async def test_a_greedy_template_fails_its_task_alone(ctx: FakeContext, mailbox: Mailbox, template: str) -> None:
    problem = await refusal(ctx, text=template, variables={})
    assert problem.code == "template_failed"
    assert mailbox.envelopes == []
    assert (await run(await context(ctx.sessions, "EMAIL"), send_email, MAIL))["accepted"] == ["ada@example.com"]


async def test_a_variable_cannot_add_a_header(ctx: FakeContext, mailbox: Mailbox) -> None:
    problem = await refusal(ctx, subject="{{ s }}", variables={"s": "Hi\r\nBcc: eve@example.com"})
    assert problem.code == "template_failed"
    assert mailbox.envelopes == []


async def test_a_template_knows_nothing_of_the_workers_environment(ctx: FakeContext, mailbox: Mailbox) -> None:
    problem = await refusal(ctx, text="{{ lipsum.__globals__ }}", variables={})
    assert "unsafe" in str(problem)


async def test_files_of_a_report_are_attached_for_their_owner_only(
    ctx: FakeContext, mailbox: Mailbox, sessions: Sessions
) -> None:
    report = await report_with_file(sessions, ctx.owner_id, b"x" * 3_000_000)
    await run(ctx, send_email, {**MAIL, "attachments": [{"report_task_id": str(report)}]})
    attachment = next(mailbox.message().iter_attachments())
    assert attachment.get_filename() == "report.csv"
    assert attachment.get_payload(decode=True) == b"x" * 3_000_000
    stranger = await context(sessions, "EMAIL")
    problem = await refusal(stranger, attachments=[{"report_task_id": str(report)}])
    assert (problem.code, "does not exist" in str(problem)) == ("attachment_missing", True)
    problem = await refusal(ctx := await context(sessions, "EMAIL", ctx.owner_id), attachments=[
        {"report_task_id": str(report), "name": "other.csv"}
    ])  # fmt: skip
    assert "no file 'other.csv'" in str(problem)


async def test_a_report_that_is_not_finished_is_waited_for_by_a_retry(ctx: FakeContext, mailbox: Mailbox) -> None:
    report = await add_task(ctx.sessions, ctx.owner_id, "REPORT")
    with pytest.raises(Retry, match="still PENDING"):
        await run(ctx, send_email, {**MAIL, "attachments": [{"report_task_id": str(report)}]})
    async with ctx.new_session() as session:
        await session.execute(
            text("UPDATE tasks SET status = 'FAILED', finished_at = now() WHERE id = :id"), {"id": report}
        )
        await session.commit()
    problem = await refusal(ctx, attachments=[{"report_task_id": str(report)}])
    assert (problem.code, "is FAILED" in str(problem)) == ("attachment_missing", True)


async def test_attached_files_are_bounded_together(
    ctx: FakeContext, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(message, "MAX_ATTACHED_BYTES", 1000)
    report = await report_with_file(ctx.sessions, ctx.owner_id, b"x" * 600)
    one = {"report_task_id": str(report)}
    assert (await refusal(ctx, attachments=[one, one])).code == "attachments_too_large"


async def report_with_file(sessions: Sessions, owner_id: UUID, content: bytes) -> UUID:
    report = await add_task(sessions, owner_id, "REPORT")
    async with sessions() as session:
        await files.write(session, report, name="report.csv", media_type="text/csv", source=BytesIO(content))
        await session.commit()
    return report


async def test_without_a_server_the_task_fails_with_the_settings_name(ctx: FakeContext) -> None:
    problem = await refusal(ctx)
    assert (problem.code, "TASKFLOW_SMTP_URL" in str(problem)) == ("smtp_not_configured", True)
    assert await record_of(ctx) is None


@pytest.mark.parametrize(
    ("answers", "code"),
    [
        ({"ada@example.com": "550 no such user", "bob@example.com": "554 spam"}, "smtp_rejected"),
        ({"ada@example.com": "550 no such user", "bob@example.com": "451 greylisted"}, None),
    ],
)
async def test_all_refused_for_good_fails_and_refused_for_now_retries(
    ctx: FakeContext, mailbox: Mailbox, answers: dict[str, str], code: str | None
) -> None:
    mailbox.refuse = answers
    with pytest.raises(NonRetryable if code else Retry, match="550 no such user"):
        await run(ctx, send_email, {**MAIL, "to": list(answers)})
    record = await record_of(ctx)
    assert record is not None
    assert record.sent_at is None


@pytest.mark.parametrize(("answer", "error"), [("554 spam", NonRetryable), ("452 no room", Retry)])
async def test_an_answer_to_the_content_decides_between_failure_and_retry(
    ctx: FakeContext, mailbox: Mailbox, answer: str, error: type[Exception]
) -> None:
    mailbox.data_answer = answer
    with pytest.raises(error, match=answer):
        await run(ctx, send_email, MAIL)
    mailbox.data_answer = "250 OK"
    await run(ctx, send_email, MAIL)
    assert len(mailbox.envelopes) == 1


async def test_a_server_that_is_away_is_tried_again(ctx: FakeContext, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(Mailbox()) as port:
        pass
    use(monkeypatch, f"smtp://127.0.0.1:{port}")
    with pytest.raises(Retry, match="Error connecting"):
        await run(ctx, send_email, MAIL)


async def test_a_canceled_task_sends_nothing(ctx: FakeContext, mailbox: Mailbox) -> None:
    ctx.canceled = True
    with pytest.raises(TaskCanceled):
        await run(ctx, send_email, MAIL)
    assert mailbox.envelopes == []


async def test_two_attempts_at_once_make_one_record(ctx: FakeContext, mailbox: Mailbox) -> None:
    results = await asyncio.gather(run(ctx, send_email, MAIL), run(ctx, send_email, MAIL))
    assert results[0] == results[1]
    async with ctx.new_session() as session:
        assert len((await session.scalars(select(EmailSend))).all()) == 1


async def test_an_attempt_that_is_stopped_while_sending_still_marks_its_mail(
    ctx: FakeContext, mailbox: Mailbox
) -> None:
    mailbox.hold = asyncio.Event()
    attempt = asyncio.ensure_future(run(ctx, send_email, MAIL))
    await eventually_async(mailbox.is_asked)
    attempt.cancel()
    mailbox.hold.set()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    record = await record_of(ctx)
    assert record is not None
    assert record.sent_at is not None
    await run(ctx, send_email, MAIL)
    assert len(mailbox.envelopes) == 1
