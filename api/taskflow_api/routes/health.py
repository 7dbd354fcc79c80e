"""/health and /metrics: for Kubernetes and Prometheus, without a token."""

import asyncio
from typing import Any

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from starlette.responses import PlainTextResponse, Response

from taskflow_api.dependencies import Opened, Resources, Session
from taskflow_api.rendering import respond
from taskflow_api.schemas.health import Liveness, Readiness
from taskflow_core import revisions
from taskflow_core.database import is_outage
from taskflow_core.errors import Unavailable

PROBE_TIMEOUT_S = 2.0
REVISION = text("SELECT version_num FROM alembic_version")

router = APIRouter(tags=["operations"])


@router.get("/health/live", responses={200: {"model": Liveness}})
async def live() -> Response:
    """Answer as long as the event loop turns."""
    return respond({"status": "ok"})


@router.get("/health/ready", responses={200: {"model": Readiness}})
async def ready(opened: Opened, session: Session) -> Response:
    """Answer 200 when requests can be served: PostgreSQL answers, with this version's schema or a newer one.

    Without Redis tasks are accepted and delivered later: 200 with the status "degraded".
    """
    revision = await _revision(session)
    if not revisions.serves(revision, opened.revisions):
        raise Unavailable(f"the schema is at revision {revision}, this version needs {opened.revisions[0]}")
    redis = "ok" if await _redis_answers(opened) else "away"
    body: dict[str, Any] = {"postgres": "ok", "schema": revision, "redis": redis}
    return respond({"status": "ok" if redis == "ok" else "degraded", **body})


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(opened: Opened) -> Response:
    """Return what this process counts, in Prometheus' text format."""
    return Response(opened.metrics.render(), media_type=CONTENT_TYPE_LATEST)


async def _revision(session: Session) -> str | None:
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            return (await session.execute(REVISION)).scalar_one_or_none()
    except ProgrammingError:
        return None  # there is no such table: an empty database
    except Exception as error:
        if is_outage(error):
            raise Unavailable("PostgreSQL does not answer") from error
        raise


async def _redis_answers(opened: Resources) -> bool:
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            return bool(await opened.redis.ping())
    except (RedisError, OSError, TimeoutError):
        return False
