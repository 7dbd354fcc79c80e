"""/queues: how they stand, and who may take from them."""

from typing import Annotated, Any

from fastapi import APIRouter, Path
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import Request
from starlette.responses import Response

from taskflow_api.dependencies import CurrentActor, Opened, Resources, Session, origin_of
from taskflow_api.rendering import respond
from taskflow_api.schemas.queues import QueueList, QueueResource
from taskflow_api.schemas.tasks import QUEUE_PATTERN
from taskflow_core import queues, security_events
from taskflow_core.actors import Actor
from taskflow_core.queues import QueueState
from taskflow_core.security_events import EventKind

ONE: dict[int | str, dict[str, Any]] = {200: {"model": QueueResource}}

router = APIRouter(prefix="/api/v1/queues", tags=["queues"])

Name = Annotated[str, Path(pattern=QUEUE_PATTERN)]


@router.get("", responses={200: {"model": QueueList}})
async def list_queues(opened: Opened, _actor: CurrentActor, session: Session) -> Response:
    """Return the queues, by name."""
    states = await queues.list_states(session)
    rates = await _rates(opened, session)
    return respond({"items": [_body(state, rates) for state in states]})


@router.post("/{name}:pause", responses=ONE)
async def pause(name: Name, request: Request, opened: Opened, actor: CurrentActor, session: Session) -> Response:
    """Let no worker take from a queue; what runs goes on."""
    state = await queues.pause(session, name, actor=actor)
    await _record(session, EventKind.QUEUE_PAUSED, name, actor, request)
    rates = await _rates(opened, session)
    await session.commit()
    return respond(_body(state, rates))


@router.post("/{name}:resume", responses=ONE)
async def resume(name: Name, request: Request, opened: Opened, actor: CurrentActor, session: Session) -> Response:
    """Let workers take from a queue again."""
    state = await queues.resume(session, name, actor=actor)
    await _record(session, EventKind.QUEUE_RESUMED, name, actor, request)
    rates = await _rates(opened, session)
    await session.commit()
    return respond(_body(state, rates))


async def _record(session: AsyncSession, kind: EventKind, name: str, actor: Actor, request: Request) -> None:
    await security_events.record(
        session, kind, origin=origin_of(request), user_id=None, actor_id=actor.user_id, data={"queue": name}
    )


async def _rates(opened: Resources, session: AsyncSession) -> dict[str, float]:
    return await opened.recent.get("throughput", lambda: queues.throughput(session))


def _body(state: QueueState, rates: dict[str, float]) -> dict[str, Any]:
    paused = state.paused_at is not None
    return {"paused": paused, "finished_per_minute": rates.get(state.name, 0.0), **state._asdict()}
