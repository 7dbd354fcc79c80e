"""The mail itself: rendered texts, headers, attachments, as the bytes that go over the wire."""

import asyncio
import json
import re
import sys
from dataclasses import dataclass
from email import policy
from email.message import EmailMessage
from email.utils import format_datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from taskflow_core import files
from taskflow_core.actors import Actor
from taskflow_core.handlers import Context, NonRetryable, Retry
from taskflow_core.lifecycle import FINAL, TaskStatus
from taskflow_core.models.effects import EmailSend
from taskflow_core.models.tasks import Task
from taskflow_core.models.users import Role
from taskflow_core.settings import WorkerSettings, load
from taskflow_worker.types.email.models import EmailPayload, InlineAttachment, ReportAttachment

MAX_ATTACHED_BYTES = 20 * 1024 * 1024
MAX_SUBJECT = 500
CONTROL = re.compile("[\x00-\x1f\x7f\x85\u2028\u2029]")
RENDER_S = 15.0
RENDERERS = asyncio.Semaphore(4)  # processes at once, however many slots the worker has


@dataclass(frozen=True, slots=True)
class Attached:
    """A file as it goes into the mail."""

    name: str
    media_type: str
    data: bytes


async def compose(ctx: Context, payload: EmailPayload, record: EmailSend) -> bytes:
    """Return the whole mail. Message-ID and Date come from the record, so every attempt sends the same.

    Raises:
        NonRetryable: template_failed, attachment_missing, attachments_too_large.
        Retry: an attached report is not finished, or the renderer got no CPU time.
    """
    texts = {"subject": payload.subject, "text": payload.text, "html": payload.html}
    given = {name: text for name, text in texts.items() if text is not None}
    if payload.variables is not None:
        given = await render(given, payload.variables)
    attached = await _attachments(ctx, payload)
    return await asyncio.to_thread(assemble, payload, record, given, attached, load(WorkerSettings).mail_from)


async def render(texts: dict[str, str], variables: dict[str, object]) -> dict[str, str]:
    """Render templates in a process of their own, with bounded CPU time, memory and output.

    Raises:
        NonRetryable: template_failed, with the template's name and line.
        Retry: no answer in 15 s, which on a busy machine says nothing of the template.
    """
    async with RENDERERS:
        status, output = await _run_child(json.dumps({"texts": texts, "variables": variables}).encode())
    if status != 0:
        raise NonRetryable("the templates need too much time or memory to render", code="template_failed")
    answer = json.loads(output)
    if "problem" in answer:
        raise NonRetryable(answer["problem"], code="template_failed")
    rendered: dict[str, str] = answer["texts"]
    subject = rendered["subject"]
    if CONTROL.search(subject) or not 0 < len(subject) <= MAX_SUBJECT:
        raise NonRetryable(f"subject must render to one line of 1 to {MAX_SUBJECT} characters", code="template_failed")
    return rendered


async def _run_child(request: bytes) -> tuple[int | None, bytes]:
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-X",
        "utf8",
        "-m",
        "taskflow_worker.types.email.child",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={},
    )
    try:
        output, _ = await asyncio.wait_for(child.communicate(request), RENDER_S)
    except TimeoutError as error:
        raise Retry("the templates were not rendered in time") from error
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    return child.returncode, output


def assemble(
    payload: EmailPayload, record: EmailSend, texts: dict[str, str], attached: list[Attached], sender: str
) -> bytes:
    """Return the mail as bytes: 7 bit, so that every server takes it; Bcc is left to the envelope."""
    message = EmailMessage(policy=policy.SMTP.clone(cte_type="7bit"))
    message["From"] = sender
    message["To"] = ", ".join(payload.to)
    if payload.cc:
        message["Cc"] = ", ".join(payload.cc)
    if payload.reply_to is not None:
        message["Reply-To"] = payload.reply_to
    message["Subject"] = texts["subject"]
    message["Message-ID"] = record.message_id
    message["Date"] = format_datetime(record.created_at)
    message["Auto-Submitted"] = "auto-generated"
    if "text" in texts:
        message.set_content(texts["text"])
    if "html" in texts and "text" in texts:
        message.add_alternative(texts["html"], subtype="html")
    elif "html" in texts:
        message.set_content(texts["html"], subtype="html")
    for one in attached:
        maintype, _, subtype = one.media_type.partition(";")[0].partition("/")
        message.add_attachment(one.data, maintype=maintype, subtype=subtype, filename=one.name)
    return message.as_bytes()


async def _attachments(ctx: Context, payload: EmailPayload) -> list[Attached]:
    attached: list[Attached] = []
    for one in payload.attachments:
        if isinstance(one, InlineAttachment):
            attached.append(Attached(one.name, one.media_type, one.data()))
        else:
            room = MAX_ATTACHED_BYTES - sum(len(other.data) for other in attached)
            attached += await _from_report(ctx, one, room)
    return attached


async def _from_report(ctx: Context, wanted: ReportAttachment, room: int) -> list[Attached]:
    actor = Actor(ctx.owner_id, Role.USER)
    async with ctx.new_session() as session:
        entries = await files.list_files(session, wanted.report_task_id, actor=actor)
        if not entries:
            await _explain_missing(session, ctx, wanted)
    if wanted.name is not None:
        entries = [entry for entry in entries if entry.name == wanted.name]
    if not entries:
        raise NonRetryable(
            f"attachments: task {wanted.report_task_id} has no file {wanted.name!r}", code="attachment_missing"
        )
    if sum(entry.size for entry in entries) > room:
        raise NonRetryable(
            f"attachments are larger than {MAX_ATTACHED_BYTES} bytes together", code="attachments_too_large"
        )
    return [Attached(entry.name, entry.media_type, await _content(ctx, wanted, entry.name, actor)) for entry in entries]


async def _content(ctx: Context, wanted: ReportAttachment, name: str, actor: Actor) -> bytes:
    pieces = files.read(ctx.new_session, wanted.report_task_id, name, actor=actor)
    return b"".join([piece async for piece in pieces])


async def _explain_missing(session: AsyncSession, ctx: Context, wanted: ReportAttachment) -> None:
    status = await session.scalar(
        select(col(Task.status)).where(col(Task.id) == wanted.report_task_id, col(Task.owner_id) == ctx.owner_id)
    )
    if status is not None and TaskStatus(status) not in FINAL:
        raise Retry(f"task {wanted.report_task_id}, whose files are to be attached, is still {status}")
    words = "does not exist" if status is None else f"is {status} and has no files"
    raise NonRetryable(f"attachments: task {wanted.report_task_id} {words}", code="attachment_missing")
