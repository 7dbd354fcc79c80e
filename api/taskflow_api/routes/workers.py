"""/workers: who runs tasks, for OPERATOR and ADMIN."""

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from taskflow_api.dependencies import CurrentActor, Session
from taskflow_api.rendering import respond
from taskflow_api.schemas.workers import WorkerDetail, WorkerList, WorkerListQuery
from taskflow_core import workers

router = APIRouter(prefix="/api/v1/workers", tags=["operations"])

WorkerId = Annotated[str, Path(max_length=300, pattern=r"^[\x21-\x7e]+$")]


@router.get("", responses={200: {"model": WorkerList}})
async def list_workers(query: Annotated[WorkerListQuery, Query()], actor: CurrentActor, session: Session) -> Response:
    """Return a page of workers, by id."""
    page = await workers.list_after(session, actor=actor, limit=query.limit, after=query.cursor)
    return respond({"items": [asdict(worker) for worker in page.workers], "next_cursor": page.next_after})


@router.get("/{worker_id}", responses={200: {"model": WorkerDetail}})
async def get(worker_id: WorkerId, actor: CurrentActor, session: Session) -> Response:
    """Return one worker with the tasks that it runs."""
    worker, running = await workers.get(session, worker_id, actor=actor)
    return respond(asdict(worker) | {"tasks": [task._asdict() for task in running]})
