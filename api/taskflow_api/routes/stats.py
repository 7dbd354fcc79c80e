"""/stats: figures about what was created lately."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from taskflow_api.dependencies import CurrentActor, Opened, Session
from taskflow_api.rendering import respond
from taskflow_api.schemas.stats import Stats, StatsQuery
from taskflow_core import stats

router = APIRouter(prefix="/api/v1/stats", tags=["operations"])


@router.get("", responses={200: {"model": Stats}})
async def get(query: Annotated[StatsQuery, Query()], opened: Opened, actor: CurrentActor, session: Session) -> Response:
    """Return figures about your tasks, for OPERATOR and ADMIN about all; up to two seconds old."""
    whose = None if actor.sees_all else actor.user_id
    key = ("stats", whose, query.window_s)
    return respond(await opened.recent.get(key, lambda: stats.figures(session, actor=actor, window_s=query.window_s)))
