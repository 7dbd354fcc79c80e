"""/admin: accounts of others and the record of security events, for an ADMIN alone."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from starlette.requests import Request
from starlette.responses import Response

from taskflow_api.body import read
from taskflow_api.dependencies import CurrentActor, Opened, Session, origin_of, require_admin
from taskflow_api.openapi import takes
from taskflow_api.rendering import respond
from taskflow_api.schemas.admin import (
    SecurityEventList,
    SecurityEventListQuery,
    UserChangeBody,
    UserList,
    UserListQuery,
    UserResource,
)
from taskflow_core import administration, security_events
from taskflow_core.administration import UserChange, UserFilter
from taskflow_core.models.access import SecurityEvent
from taskflow_core.models.users import User

ONE: dict[int | str, dict[str, Any]] = {200: {"model": UserResource}}

router = APIRouter(prefix="/api/v1/admin", tags=["admin"], dependencies=[Depends(require_admin)])


@router.get("/users", responses={200: {"model": UserList}})
async def list_users(query: Annotated[UserListQuery, Query()], session: Session) -> Response:
    """Return a page of accounts, newest first."""
    filters = UserFilter(email_prefix=query.email, role=query.role, disabled=query.disabled)
    page = await administration.list_after(session, filters, limit=query.limit, after=query.cursor)
    return respond({"items": [_user(user) for user in page.users], "next_cursor": page.next_after})


@router.get("/users/{user_id}", responses=ONE)
async def get_user(user_id: UUID, session: Session) -> Response:
    """Return one account."""
    return respond(_user(await administration.get(session, user_id)))


@router.patch("/users/{user_id}", responses=ONE, openapi_extra=takes(UserChangeBody))
async def change_user(
    user_id: UUID, request: Request, opened: Opened, actor: CurrentActor, session: Session
) -> Response:
    """Give an account another role, disable it or enable it; the last active ADMIN stays one."""
    body = await read(request, UserChangeBody)
    wanted = UserChange(role=body.role, disabled=body.disabled)
    changed = await administration.change(session, user_id, wanted, actor=actor, origin=origin_of(request))
    await session.commit()
    opened.admission.forget_account(user_id)
    for key_hash in changed.key_hashes:
        opened.admission.forget_key(key_hash)
    return respond(_user(changed.user))


@router.get("/security-events", responses={200: {"model": SecurityEventList}})
async def list_security_events(query: Annotated[SecurityEventListQuery, Query()], session: Session) -> Response:
    """Return a page of what happened to accounts and access, newest first."""
    page = await security_events.list_after(
        session, user_id=query.user_id, kind=query.kind, limit=query.limit, after=query.cursor
    )
    cursor = None if page.next_after is None else str(page.next_after)
    return respond({"items": [_event(event) for event in page.events], "next_cursor": cursor})


def _user(user: User) -> dict[str, Any]:
    """Return the fields of UserResource."""
    return {
        "id": user.id,
        "email": user.email,
        "role": user.role,
        "disabled": user.disabled_at is not None,
        "disabled_at": user.disabled_at,
        "last_login_at": user.last_login_at,
        "created_at": user.created_at,
        "updated_at": user.updated_at,
    }


def _event(event: SecurityEvent) -> dict[str, Any]:
    """Return the fields of SecurityEventResource."""
    return {
        "id": str(event.id),
        "kind": event.kind,
        "user_id": event.user_id,
        "actor_id": event.actor_id,
        "address": event.address,
        "user_agent": event.user_agent,
        "request_id": event.request_id,
        "data": event.data or {},
        "created_at": event.created_at,
    }
