"""`Prefer: wait=N` (RFC 7240): the answer comes when the task has finished, or after N seconds."""

import re
from typing import Any
from uuid import UUID

from starlette.requests import Request

from taskflow_api.dependencies import Resources
from taskflow_api.heads import headers
from taskflow_api.rendering import task_body
from taskflow_core import tasks
from taskflow_core.actors import Actor
from taskflow_core.clock import utc_now
from taskflow_core.database import is_outage
from taskflow_core.errors import NoStreamFree, NotFound

MOST_S = 30
WAIT = re.compile(r'(?:^|[,;])\s*wait\s*=\s*"?([0-9]{1,9})"?\s*(?=$|[,;])', re.IGNORECASE)
HEADER = "Prefer"
DESCRIPTION = "`wait=N`: answer when the task has finished, or after N seconds, at most 30."


def preferred_wait_s(request: Request) -> int:
    """Return for how many seconds the client wants to wait, at most MOST_S; 0 when it does not say or cannot."""
    asked = headers(request.scope, b"prefer")
    found = WAIT.search(",".join(asked)) if asked else None
    seconds = min(MOST_S, int(found[1])) if found else 0
    if seconds:
        request.state.held_open = True
    return seconds


async def until_final(opened: Resources, task_id: UUID, *, seconds: int) -> dict[str, str]:
    """Wait as the client prefers; return the headers that say so, none if it does not or too many wait already.

    Nobody's connection to PostgreSQL is held meanwhile: the caller's session must have ended its transaction.
    """
    if not seconds:
        return {}
    try:
        await opened.feed.until_final(task_id, timeout_s=seconds)
    except NoStreamFree:
        return {}
    return {"Preference-Applied": f"wait={seconds}", "Vary": "Prefer"}


async def body_now(opened: Resources, task_id: UUID, *, actor: Actor) -> dict[str, Any] | None:
    """Return the fields of a task as it is now; None when it cannot be read."""
    try:
        async with opened.sessions() as session:
            return task_body(await tasks.get(session, task_id, actor=actor), now=utc_now())
    except NotFound:
        return None
    except Exception as error:
        if is_outage(error):
            return None
        raise
