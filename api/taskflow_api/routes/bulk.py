"""/tasks:bulk*: many tasks at once, or none."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from taskflow_api.body import read
from taskflow_api.dependencies import CurrentActor, Opened, Session
from taskflow_api.filters import task_filter
from taskflow_api.openapi import takes
from taskflow_api.rendering import respond
from taskflow_api.schemas.tasks import BulkCancelBody, BulkCancelResult, BulkRetryBody, BulkRetryResult
from taskflow_core import bulk

DELIVERED_AT_ONCE = 1000

router = APIRouter(prefix="/api/v1/tasks", tags=["tasks"])


@router.post(":bulkCancel", responses={200: {"model": BulkCancelResult}}, openapi_extra=takes(BulkCancelBody))
async def bulk_cancel(request: Request, actor: CurrentActor, session: Session) -> Response:
    """Cancel all unfinished tasks of a filter, if there are as many as expected; those that run are asked to stop."""
    body = await read(request, BulkCancelBody)
    filters = task_filter(body.filter, actor, prefix="filter.")
    done = await bulk.cancel_unfinished(session, filters, actor=actor, expected_count=body.expected_count)
    await session.commit()
    return respond(done._asdict())


@router.post(":bulkRetry", responses={200: {"model": BulkRetryResult}}, openapi_extra=takes(BulkRetryBody))
async def bulk_retry(request: Request, opened: Opened, actor: CurrentActor, session: Session) -> Response:
    """Give all FAILED tasks of a filter a fresh set of attempts, if there are as many as expected."""
    body = await read(request, BulkRetryBody)
    filters = task_filter(body.filter, actor, prefix="filter.")
    done = await bulk.retry_failed(session, filters, actor=actor, expected_count=body.expected_count)
    await session.commit()
    for start in range(0, len(done.retried), DELIVERED_AT_ONCE):
        await opened.queue.deliver(done.retried[start : start + DELIVERED_AT_ONCE])
    return respond({"retried": len(done.retried), "skipped": done.skipped})
