"""The task type EMAIL: a mail over SMTP, sent once however often the task is attempted."""

import asyncio
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import col

from taskflow_core.database import is_outage
from taskflow_core.handlers import Context, task_type
from taskflow_core.links import pause
from taskflow_core.models.effects import EmailSend
from taskflow_worker.types.email.models import EmailPayload, EmailResult, Refusal

if TYPE_CHECKING:
    from aiosmtplib import SMTP

MARK_S = 30.0  # how long PostgreSQL may be away between the server's answer and the mark
STOP_S = 8.0  # a worker stops the process of a handler that ignores it for 10 s


@task_type("EMAIL", timeout_s=120)
async def send_email(ctx: Context, payload: EmailPayload) -> EmailResult:
    """Send a mail over SMTP, once, with templates and attachments.

    A record is committed before sending and marked right after the server's answer, so another attempt does not send
    again. Killed between that answer and the mark, it does, under the same Message-ID.
    """
    from taskflow_worker.types.email import message, smtp

    server = smtp.configured_server()
    record = await _record(ctx, payload)
    if record.sent_at is None:
        mail = await message.compose(ctx, payload, record)
        ctx.check_cancel()
        async with smtp.connected(server) as client:
            record = await _to_its_end(_send(ctx, client, mail, record))
        ctx.log.info("email.sent", message_id=record.message_id)
    return EmailResult(
        message_id=record.message_id,
        accepted=[one["address"] for one in record.recipients if one["refused"] is None],
        refused=[
            Refusal(address=one["address"], reason=one["refused"])
            for one in record.recipients
            if one["refused"] is not None
        ],
    )


async def _record(ctx: Context, payload: EmailPayload) -> EmailSend:
    """Return the task's record, made and committed here by its first attempt."""
    async with ctx.new_session() as session:
        await session.execute(
            insert(EmailSend)
            .values(
                task_id=ctx.task_id,
                message_id=f"<{ctx.task_id}@taskflow>",
                recipients=[{"address": address, "refused": None} for address in payload.recipients()],
            )
            .on_conflict_do_nothing()
        )
        record = (await session.scalars(select(EmailSend).where(col(EmailSend.task_id) == ctx.task_id))).one()
        await session.commit()
        return record


async def _send(ctx: Context, client: "SMTP", mail: bytes, record: EmailSend) -> EmailSend:
    from taskflow_worker.types.email import smtp

    refused = await smtp.deliver(client, mail, [one["address"] for one in record.recipients])
    until, failures = time.monotonic() + MARK_S, 0
    while True:  # another attempt would send again, so an outage of PostgreSQL is waited out here
        try:
            return await _mark_sent(ctx, record, refused)
        except (SQLAlchemyError, OSError) as error:
            if not is_outage(error) or time.monotonic() > until:
                raise
            failures += 1
            await pause(failures, cap_s=1.0)


async def _to_its_end(sending: Coroutine[Any, Any, EmailSend]) -> EmailSend:
    """Wait for the sending and its mark. Told to stop meanwhile, let them end first, so that no mail goes unmarked."""
    task = asyncio.ensure_future(sending)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task}, timeout=STOP_S)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        raise


async def _mark_sent(ctx: Context, record: EmailSend, refused: dict[str, str]) -> EmailSend:
    async with ctx.new_session() as session:
        statement = (
            update(EmailSend)
            .where(col(EmailSend.task_id) == ctx.task_id)
            .values(
                sent_at=func.now(),
                recipients=[
                    {"address": one["address"], "refused": refused.get(one["address"])} for one in record.recipients
                ],
            )
            .returning(EmailSend)
        )
        marked = (await session.scalars(statement)).one()
        await session.commit()
        return marked
