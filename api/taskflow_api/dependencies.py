"""What endpoints are given: the app's resources, a session, and who is asking."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from starlette.requests import Request

from taskflow_api.feed import Feed
from taskflow_api.heads import header
from taskflow_api.limiter import RequestLimiter
from taskflow_api.metrics import Metrics
from taskflow_api.recent import Recent
from taskflow_api.throttle import Throttle
from taskflow_core.actors import Actor
from taskflow_core.admission import Admission
from taskflow_core.database import Sessions
from taskflow_core.errors import Forbidden, Unauthenticated
from taskflow_core.handlers import Registry
from taskflow_core.intake import Intake
from taskflow_core.keyring import Keyring
from taskflow_core.models.users import Role
from taskflow_core.passwords import Passwords
from taskflow_core.queue import DeliveryQueue
from taskflow_core.quotas import OpenTasks
from taskflow_core.reading import Reading
from taskflow_core.security_events import Origin
from taskflow_core.settings import ApiSettings
from taskflow_core.sharing import Shared
from taskflow_core.tokens import AccessTokens, Identity


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What the app opens when it starts and closes when it stops."""

    settings: ApiSettings
    engine: AsyncEngine
    sessions: Sessions
    redis: "Redis"
    queue: DeliveryQueue
    open_tasks: OpenTasks
    intake: Intake
    reading: Reading
    pages: Shared[bytes]
    registry: Registry
    keyring: Keyring
    tokens: AccessTokens
    admission: Admission
    passwords: Passwords
    throttle: Throttle
    metrics: Metrics
    limiter: RequestLimiter
    recent: Recent
    revisions: list[str]
    feed: Feed


def resources_of(request: Request) -> Resources:
    """Return the app's resources."""
    return cast("Resources", request.app.state.resources)


async def get_resources(request: Request) -> Resources:
    """Return the app's resources; a coroutine, because FastAPI calls functions in threads."""
    return resources_of(request)


Opened = Annotated[Resources, Depends(get_resources)]


async def open_session(opened: Opened) -> AsyncIterator[AsyncSession]:
    """Open a session for one request and close it; the endpoint commits."""
    async with opened.sessions() as session:
        yield session


# scope="function": the connection goes back to the pool before the answer is sent, not when a slow client has read it.
Session = Annotated[AsyncSession, Depends(open_session, scope="function")]
Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False, bearerFormat="JWT"))]


async def identify(request: Request, opened: Resources) -> Identity:
    """Return whom the request's token or API key speaks for.

    Raises:
        Unauthenticated: no bearer token was sent.
        InvalidToken: it is not valid, or no longer.
        Forbidden: it is an API key that may not do this.
        RateLimited: they have sent too many requests.
    """
    scheme, _, token = header(request.scope, b"authorization").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated("send an access token or an API key: Authorization: Bearer <token>")
    identity = await opened.admission.identify(token, method=request.method, path=request.scope["path"])
    state = request.scope["state"]
    state["user_id"] = str(identity.actor.user_id)
    await opened.limiter.enter(state, identity.actor.user_id)
    state["identity"] = identity
    return identity


async def actor_of(request: Request, opened: Resources) -> Actor:
    """Return who is asking; raises what `identify` does."""
    return (await identify(request, opened)).actor


async def describe_identity(request: Request, _described: Bearer, opened: Opened) -> Identity:
    """Return what `identify` does, as a dependency."""
    return await identify(request, opened)


async def authenticate(identity: "CurrentIdentity") -> Actor:
    """Return who is asking, as a dependency."""
    return identity.actor


CurrentIdentity = Annotated[Identity, Depends(describe_identity)]
CurrentActor = Annotated[Actor, Depends(authenticate)]


async def require_admin(actor: CurrentActor) -> None:
    """Let only an ADMIN pass.

    Raises:
        Forbidden: the actor is none.
    """
    if actor.role is not Role.ADMIN:
        raise Forbidden("only an ADMIN may do this")


def origin_of(request: Request) -> Origin:
    """Return where a request came from."""
    address = request.client.host if request.client else ""
    return Origin(address, request.headers.get("user-agent", ""), request.state.request_id)
