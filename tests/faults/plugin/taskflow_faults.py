"""Task types of the fault scenarios; none bounds how many run at once, so that workers claim the usual way."""

import asyncio
import os
import signal
import threading
import time

from pydantic import BaseModel
from sqlalchemy import text

from taskflow_core.handlers import Context, task_type


class Nothing(BaseModel):
    pass


class Nap(BaseModel):
    seconds: float = 1.0


class Break(BaseModel):
    until_attempt: int = 1_000


class Note(BaseModel):
    key: str
    seconds: float = 0.0


class Attempt(BaseModel):
    attempt: int


@task_type("ECHO")
async def echo(ctx: Context, payload: Nothing) -> Attempt:
    """Return at once."""
    return Attempt(attempt=ctx.attempt)


@task_type("NAP")
async def nap(ctx: Context, payload: Nap) -> Attempt:
    """Sleep."""
    await asyncio.sleep(payload.seconds)
    return Attempt(attempt=ctx.attempt)


@task_type("TALK")
async def talk(ctx: Context, payload: Nap) -> Attempt:
    """Log ten lines a second."""
    for number in range(round(payload.seconds * 10)):
        ctx.log.info("talk.said", number=number)
        await asyncio.sleep(0.1)
    return Attempt(attempt=ctx.attempt)


@task_type("BREAK")
async def break_(ctx: Context, payload: Break) -> Attempt:
    """Fail until the given attempt."""
    if ctx.attempt < payload.until_attempt:
        raise ValueError("broken")
    return Attempt(attempt=ctx.attempt)


@task_type("DEAF")
def deaf(ctx: Context, payload: Nap) -> Attempt:
    """Wait in a thread, whatever it is told."""
    end = time.monotonic() + payload.seconds
    never = threading.Event()
    while time.monotonic() < end:
        try:
            never.wait(0.05)
        except BaseException:  # noqa: BLE001, S112 - that is its point
            continue
    return Attempt(attempt=ctx.attempt)


@task_type("CRASH")
async def crash(ctx: Context, payload: Nothing) -> None:
    """Kill the worker."""
    os.kill(os.getpid(), signal.SIGKILL)


@task_type("NOTE")
async def note(ctx: Context, payload: Note) -> Attempt:
    """Count up in the completing transaction, and keep it open for a while."""
    session = await ctx.session()
    await session.execute(
        text(
            "INSERT INTO platform_state (key, value) VALUES (:key, '1') "
            "ON CONFLICT (key) DO UPDATE SET value = (platform_state.value::int + 1)::text"
        ),
        {"key": payload.key},
    )
    await asyncio.sleep(payload.seconds)
    return Attempt(attempt=ctx.attempt)


@task_type("HOG")
async def hog(ctx: Context, payload: Nap) -> Attempt:
    """Keep every connection that the handlers of this worker may have, and more, for a while."""
    async with asyncio.TaskGroup() as group:
        for _ in range(100):
            group.create_task(_hold(ctx, payload.seconds))
    return Attempt(attempt=ctx.attempt)


async def _hold(ctx: Context, seconds: float) -> None:
    async with ctx.new_session() as session:
        await session.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})
