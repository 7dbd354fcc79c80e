"""GET /tasks and /tasks/{id}: what clients ask for again and again; equal requests share their statements."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from psycopg import AsyncConnection
from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from taskflow_api import cursors, waiting
from taskflow_api.conditions import IF_NONE_MATCH, KNOWN, known_to, unchanged
from taskflow_api.dependencies import Bearer, actor_of, resources_of
from taskflow_api.direct import Direct
from taskflow_api.filters import task_filter
from taskflow_api.openapi import SECURED, by_header, by_path, described
from taskflow_api.rendering import task_body, task_response, to_json
from taskflow_api.schemas.tasks import MAX_ROWS, Counting, ListQuery, TaskList, TaskResource
from taskflow_core import listing
from taskflow_core.actors import Actor
from taskflow_core.clock import utc_now
from taskflow_core.errors import FieldProblem, Invalid
from taskflow_core.inserts import TaskRow
from taskflow_core.listing import TaskFilter, Total
from taskflow_core.validation import invalid

ID = TypeAdapter(UUID)
SEVERAL = frozenset({"status", "type"})  # may be given more than once


async def list_tasks(request: Request) -> Response:
    """Return a page of tasks, newest first unless asked otherwise: after `cursor`, or number `page`."""
    opened = resources_of(request)
    actor = await actor_of(request, opened)
    query = _query(request)
    filters = task_filter(query, actor)
    if query.page is not None:
        _check_page(query, query.page)
    after = None if query.cursor is None else cursors.decode(query.cursor, filters, actor, opened.keyring)

    async def page(connection: AsyncConnection[Any]) -> bytes:
        found, following, total = await _read(connection, query, filters, actor=actor, after=after)
        cursor = cursors.encode(following, filters, actor, opened.keyring) if following else None
        return to_json(_body(query, found, total, cursor))

    asked = (actor, request.scope["query_string"])
    body = await opened.pages.ask(asked, lambda: opened.reading.ask(page))
    return Response(body, media_type="application/json")


async def get(request: Request) -> Response:
    """Return one task, or 304 if the client holds this version of it; with `Prefer: wait=N`, once it has finished."""
    opened = resources_of(request)
    actor = await actor_of(request, opened)
    known, task_id = known_to(request), _task_id(request)
    task = await opened.reading.get(task_id, actor=actor)
    waited = await waiting.until_final(opened, task_id, seconds=waiting.preferred_wait_s(request))
    if waited:
        task = await opened.reading.get(task_id, actor=actor)
    return unchanged(task.row_version, known) or task_response(task, now=utc_now(), headers=waited)


def _task_id(request: Request) -> UUID:
    try:
        return ID.validate_python(request.path_params["task_id"])
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_input=False), prefix=("task_id",)) from None


def _query(request: Request) -> ListQuery:
    given = request.query_params
    fields = {name: given.getlist(name) if name in SEVERAL else value for name, value in given.items()}
    try:
        return ListQuery.model_validate(fields)
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_input=False)) from None


def _check_page(query: ListQuery, page: int) -> None:
    if query.cursor is not None:
        raise Invalid("give a cursor or a page, not both", [FieldProblem("page", "must be left out beside a cursor")])
    if page * query.limit > MAX_ROWS:
        message = f"page times limit must be at most {MAX_ROWS}; go further with next_cursor"
        raise Invalid("that page is too far", [FieldProblem("page", message)])


async def _read(
    connection: AsyncConnection[Any], query: ListQuery, filters: TaskFilter, *, actor: Actor, after: UUID | None
) -> tuple[list[TaskRow], UUID | None, Total | None]:
    """Return the tasks of a page, the id after which the next one starts, and the total if one is wanted."""
    following: UUID | None = None
    total: Total | None = None
    if query.page is not None:
        found = await listing.list_numbered(connection, filters, actor=actor, limit=query.limit, page=query.page)
    else:
        found, following = await listing.list_after(connection, filters, actor=actor, limit=query.limit, after=after)
    if query.count is Counting.ESTIMATE:
        total = await listing.estimate(connection, filters, actor=actor)
    elif query.count is Counting.EXACT or query.page is not None:
        total = await listing.count(connection, filters, actor=actor)
    return found, following, total


def _body(query: ListQuery, tasks: list[TaskRow], total: Total | None, next_cursor: str | None) -> dict[str, Any]:
    """Return the fields of TaskList."""
    now = utc_now()
    return {
        "items": [task_body(task, now=now) for task in tasks],
        "next_cursor": next_cursor,
        "total": total and total.tasks,
        "total_kind": total and total.kind,
        "page": query.page,
        "limit": query.limit,
    }


async def _takes_query(query: Annotated[ListQuery, Query()], bearer: Bearer) -> None:
    """Take what `list_tasks` reads for itself: the documentation is made of this."""


router = APIRouter(
    routes=[
        Direct(
            "/api/v1/tasks",
            list_tasks,
            methods=["GET"],
            tags=["tasks"],
            responses={200: {"model": TaskList}},
            dependencies=[Depends(_takes_query)],
        ),
        Direct(
            "/api/v1/tasks/{task_id}",
            get,
            methods=["GET"],
            tags=["tasks"],
            responses={200: {"model": TaskResource}},
            openapi_extra=SECURED
            | described(
                by_path("task_id", UUID),
                by_header(IF_NONE_MATCH, KNOWN),
                by_header(waiting.HEADER, waiting.DESCRIPTION),
            ),
        ),
    ]
)
