"""Task types that the tests install in workers of their own: they nap, raise, crash and ignore what they are told."""

import asyncio
import os
import signal
import sys
import threading
import time
from datetime import timedelta
from typing import Any, Literal

from pydantic import BaseModel
from sqlalchemy import text

from taskflow_core.clock import utc_now
from taskflow_core.handlers import Context, NonRetryable, Retry, Snooze, task_type


class Echo(BaseModel):
    value: Any = None


class Nap(BaseModel):
    seconds: float = 1.0
    steps: int = 10


class Raise(BaseModel):
    how: Literal["error", "retry", "non_retryable", "snooze", "exit", "base", "nul"] = "error"
    until_attempt: int = 1_000


class Talk(BaseModel):
    lines: int = 1
    seconds: float = 0.0
    size: int = 0


class Note(BaseModel):
    key: str
    then: Literal["return", "raise", "crash", "nap"] = "return"


class Odd(BaseModel):
    what: Literal["big", "nul", "other", "thread", "stdout"]


@task_type("ECHO")
async def echo(ctx: Context, payload: Echo) -> Echo:
    """Return the payload."""
    return payload


@task_type("STAMP")
async def stamp(ctx: Context, payload: Echo) -> Echo:
    """Return the time at which the handler started."""
    return Echo(value=time.time())


@task_type("NAP")
async def nap(ctx: Context, payload: Nap) -> Echo:
    """Sleep in steps, with progress."""
    for step in range(payload.steps):
        ctx.progress(step, payload.steps, "napping")
        await asyncio.sleep(payload.seconds / payload.steps)
    ctx.log.info("nap.over", seconds=payload.seconds)
    return Echo(value=ctx.attempt)


@task_type("TALK")
async def talk(ctx: Context, payload: Talk) -> Echo:
    """Log lines of a size, spread over a time."""
    for number in range(payload.lines):
        ctx.log.info("talk", number=number, text="x" * payload.size)
        if payload.seconds:
            await asyncio.sleep(payload.seconds / payload.lines)
    return Echo(value=payload.lines)


@task_type("SINGLE", max_running=2)
async def single(ctx: Context, payload: Nap) -> Echo:
    """Sleep, two at a time on all workers together."""
    await asyncio.sleep(payload.seconds)
    return Echo(value=ctx.attempt)


@task_type("NAP_SYNC")
def nap_sync(ctx: Context, payload: Nap) -> Echo:
    """Sleep in a thread, in small steps."""
    end = time.monotonic() + payload.seconds
    while time.monotonic() < end:
        time.sleep(0.01)
    return Echo(value=ctx.attempt)


@task_type("RAISE")
async def raise_(ctx: Context, payload: Raise) -> Echo:
    """Fail in the way that is asked for, until the given attempt."""
    if ctx.attempt >= payload.until_attempt:
        return Echo(value=ctx.attempt)
    match payload.how:
        case "retry":
            raise Retry("later", after=timedelta(seconds=0.1))
        case "non_retryable":
            raise NonRetryable("no use", code="no_use")
        case "snooze":
            raise Snooze(utc_now() + timedelta(seconds=0.2))
        case "exit":
            sys.exit(3)
        case "base":
            raise BaseException("rude")
        case "nul":
            raise ValueError("a\x00b")
        case _:
            raise ValueError("broken")


@task_type("STUBBORN")
def stubborn(ctx: Context, payload: Nap) -> None:
    """Ignore every interrupt."""
    end = time.monotonic() + payload.seconds
    while time.monotonic() < end:
        try:
            time.sleep(0.05)
        except BaseException:  # noqa: BLE001, S112 - that is its point
            continue


@task_type("CRASH")
async def crash(ctx: Context, payload: Echo) -> None:
    """Kill the worker."""
    os.kill(os.getpid(), signal.SIGKILL)


@task_type("NOTE")
async def note(ctx: Context, payload: Note) -> Echo:
    """Write a row in the completing transaction, then end as asked."""
    session = await ctx.session()
    await session.execute(
        text(
            "INSERT INTO platform_state (key, value) VALUES (:key, '1') "
            "ON CONFLICT (key) DO UPDATE SET value = (platform_state.value::int + 1)::text"
        ),
        {"key": payload.key},
    )
    if payload.then == "raise":
        raise ValueError("after the write")
    if payload.then == "crash" and ctx.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if payload.then == "nap":
        await asyncio.sleep(5)
    return Echo(value=ctx.attempt)


@task_type("ODD")
async def odd(ctx: Context, payload: Odd) -> Echo:
    """Do what handlers should not."""
    match payload.what:
        case "big":
            return Echo(value="x" * 300_000)
        case "nul":
            return Echo(value="a\x00b")
        case "other":
            return 7  # type: ignore[return-value]
        case "thread":
            threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
        case "stdout":
            sys.stdout.close()
    return Echo(value=payload.what)
