"""What endpoints are given: the app's resources, a session, and who is asking."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from redis.asyncio import Redis
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlmodel import col
from starlette.requests import Request

from taskflow_api.feed import Feed
from taskflow_api.metrics import Metrics
from taskflow_api.throttle import LoginThrottle
from taskflow_core.actors import Actor
from taskflow_core.database import Sessions
from taskflow_core.errors import InvalidToken, Unauthenticated
from taskflow_core.handlers import Registry
from taskflow_core.keyring import Keyring
from taskflow_core.models.users import Role, User
from taskflow_core.passwords import Passwords
from taskflow_core.queue import DeliveryQueue
from taskflow_core.settings import ApiSettings
from taskflow_core.tokens import AccessTokens, Identity


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What the app opens when it starts and closes when it stops."""

    settings: ApiSettings
    engine: AsyncEngine
    sessions: Sessions
    redis: "Redis"
    queue: DeliveryQueue
    registry: Registry
    keyring: Keyring
    tokens: AccessTokens
    passwords: Passwords
    throttle: LoginThrottle
    metrics: Metrics
    revisions: list[str]
    feed: Feed


async def get_resources(request: Request) -> Resources:
    """Return the app's resources."""
    return cast("Resources", request.app.state.resources)


Opened = Annotated[Resources, Depends(get_resources)]


async def open_session(opened: Opened) -> AsyncIterator[AsyncSession]:
    """Open a session for one request and close it; the endpoint commits."""
    async with opened.sessions() as session:
        yield session


# scope="function": the connection goes back to the pool before the answer is sent, not when a slow client has read it.
Session = Annotated[AsyncSession, Depends(open_session, scope="function")]
Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False, bearerFormat="JWT"))]


async def authenticate(request: Request, bearer: Bearer, opened: Opened, session: Session) -> Actor:
    """Return who is asking.

    Raises:
        Unauthenticated: no bearer token was sent.
        InvalidToken: it is not valid, or, of an OPERATOR or ADMIN, no longer.
    """
    if bearer is None:
        raise Unauthenticated("send an access token: Authorization: Bearer <token>")
    identity = opened.tokens.verify(bearer.credentials)
    request.state.user_id = str(identity.actor.user_id)
    request.state.identity = identity
    if identity.actor.role is not Role.USER:
        await _still_holds(session, identity)
    return identity.actor


CurrentActor = Annotated[Actor, Depends(authenticate)]


async def _still_holds(session: AsyncSession, identity: Identity) -> None:
    """Look the account up: a role that reaches beyond one's own tasks ends at once, not with the token."""
    actor = identity.actor
    account = select(col(User.id)).where(
        col(User.id) == actor.user_id,
        col(User.role) == actor.role,
        col(User.token_version) == identity.token_version,
        col(User.disabled_at).is_(None),
    )
    if (await session.execute(account)).scalar_one_or_none() is None:
        raise InvalidToken("the access token no longer holds; log in again")
