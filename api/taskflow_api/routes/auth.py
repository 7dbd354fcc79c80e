"""/auth: accounts, their passwords, and the tokens of their sessions."""

from uuid import UUID

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from taskflow_api.body import read
from taskflow_api.dependencies import CurrentActor, CurrentIdentity, Opened, Resources, Session, origin_of
from taskflow_api.openapi import takes
from taskflow_api.rendering import respond
from taskflow_api.schemas.auth import (
    Account,
    Credentials,
    PasswordChange,
    RefreshBody,
    Registration,
    SessionList,
    TokenPair,
)
from taskflow_core import refresh, security_events, users
from taskflow_core.errors import FieldProblem, Invalid, InvalidToken, TooMany, Unauthenticated, Unavailable
from taskflow_core.hashing import Check
from taskflow_core.models.users import User
from taskflow_core.security_events import EventKind

router = APIRouter(prefix="/api/v1/auth", tags=["auth"])

WRONG_CREDENTIALS = "the email address or the password is wrong"


@router.post("/register", status_code=201, responses={201: {"model": Account}}, openapi_extra=takes(Registration))
async def register(request: Request, opened: Opened, session: Session) -> Response:
    """Make an account with the role USER."""
    body = await read(request, Registration)
    email, origin = users.normalise_email(body.email), origin_of(request)
    await opened.throttle.register(origin.address)
    password_hash = await opened.passwords.hash(body.password.get_secret_value())
    user = await users.register(session, email=email, password_hash=password_hash, origin=origin)
    await session.commit()
    return respond(_account(user), status=201, headers={"Location": "/api/v1/auth/me"})


@router.post("/login", responses={200: {"model": TokenPair}}, openapi_extra=takes(Credentials))
async def login(request: Request, opened: Opened, session: Session) -> Response:
    """Trade an email address and a password for an access token and a refresh token."""
    body = await read(request, Credentials)
    email, origin = users.normalise_email(body.email), origin_of(request)
    await _enter(opened, email, origin.address)
    seen = await users.find(session, email)
    await session.commit()  # a connection must not wait for bcrypt
    stored = seen.password_hash if seen else None
    checked = await _check(opened, email, origin.address, body.password.get_secret_value(), stored)
    user = await users.log_in(session, seen, new_hash=checked.new_hash) if seen and checked.right else None
    if user is None:
        await security_events.record(session, EventKind.LOGIN_FAILED, origin=origin, user_id=seen.id if seen else None)
        await session.commit()
        opened.metrics.login("failed")
        raise Unauthenticated(WRONG_CREDENTIALS)
    started = await refresh.start(session, user.id, lifetimes=_lifetimes(opened), origin=origin)
    await security_events.record(
        session,
        EventKind.LOGIN_SUCCEEDED,
        origin=origin,
        user_id=user.id,
        actor_id=user.id,
        data={"session_id": str(started.session_id)},
    )
    await session.commit()
    opened.metrics.login("succeeded")
    await opened.throttle.take_back(account=email, address=origin.address)
    return _tokens(opened, user, started.session_id, started.token)


@router.post("/refresh", responses={200: {"model": TokenPair}}, openapi_extra=takes(RefreshBody))
async def refresh_tokens(request: Request, opened: Opened, session: Session) -> Response:
    """Trade a refresh token for the next one and a new access token. A token used twice ends its session."""
    body = await read(request, RefreshBody)
    renewal = await refresh.rotate(
        session,
        body.refresh_token.get_secret_value(),
        keyring=opened.keyring,
        lifetimes=_lifetimes(opened),
        origin=origin_of(request),
    )
    await session.commit()  # also when it was refused: the family may have been revoked
    if renewal is None:
        raise InvalidToken("the refresh token is not valid; log in again")
    return _tokens(opened, renewal.user, renewal.session_id, renewal.token)


@router.post("/logout", status_code=204, openapi_extra=takes(RefreshBody))
async def logout(request: Request, session: Session) -> Response:
    """End the session of a refresh token; answers the same for one that has ended or never was."""
    body = await read(request, RefreshBody)
    await refresh.revoke(session, body.refresh_token.get_secret_value(), origin=origin_of(request))
    await session.commit()
    return Response(status_code=204)


@router.post("/logout-all", status_code=204)
async def logout_all(request: Request, opened: Opened, actor: CurrentActor, session: Session) -> Response:
    """End every session and access token of one's own; API keys go on."""
    await users.end_tokens(session, actor.user_id)
    await refresh.revoke_all(session, actor.user_id)
    await security_events.record(
        session, EventKind.SESSIONS_REVOKED, origin=origin_of(request), user_id=actor.user_id, actor_id=actor.user_id
    )
    await session.commit()
    opened.admission.forget_account(actor.user_id)
    return Response(status_code=204)


@router.get("/sessions", responses={200: {"model": SessionList}})
async def list_sessions(identity: CurrentIdentity, session: Session) -> Response:
    """Return one's own sessions, the last used first."""
    found = await refresh.list_sessions(session, actor=identity.actor)
    return respond({"items": [{**state._asdict(), "current": state.id == identity.session_id} for state in found]})


@router.delete("/sessions/{session_id}", status_code=204)
async def end_session(session_id: UUID, request: Request, actor: CurrentActor, session: Session) -> Response:
    """End one of one's own sessions: its streams end within seconds, its access token by itself."""
    await refresh.revoke_session(session, session_id, actor=actor, origin=origin_of(request))
    await session.commit()
    return Response(status_code=204)


@router.post("/password", responses={200: {"model": TokenPair}}, openapi_extra=takes(PasswordChange))
async def change_password(request: Request, opened: Opened, actor: CurrentActor, session: Session) -> Response:
    """Replace the password; every session and access token ends, and the answer starts a new session."""
    body = await read(request, PasswordChange)
    origin = origin_of(request)
    seen = await users.get_active(session, actor.user_id)
    await session.commit()  # a connection must not wait for bcrypt
    await opened.throttle.enter(account=seen.email, address=origin.address)
    old = body.old_password.get_secret_value()
    if not (await _check(opened, seen.email, origin.address, old, seen.password_hash)).right:
        await security_events.record(session, EventKind.LOGIN_FAILED, origin=origin, user_id=seen.id, actor_id=seen.id)
        await session.commit()
        raise Invalid("the old password is wrong", [FieldProblem("old_password", "must be the password of today")])
    password_hash = await opened.passwords.hash(body.new_password.get_secret_value())
    user = await users.change_password(session, seen, password_hash=password_hash)
    await refresh.revoke_all(session, user.id)
    started = await refresh.start(session, user.id, lifetimes=_lifetimes(opened), origin=origin)
    await security_events.record(session, EventKind.PASSWORD_CHANGED, origin=origin, user_id=user.id, actor_id=user.id)
    await session.commit()
    await opened.throttle.take_back(account=seen.email, address=origin.address)
    opened.admission.forget_account(user.id)
    return _tokens(opened, user, started.session_id, started.token)


@router.get("/me", responses={200: {"model": Account}})
async def me(actor: CurrentActor, session: Session) -> Response:
    """Return the account that the access token names."""
    return respond(_account(await users.get_active(session, actor.user_id)))


async def _enter(opened: Resources, email: str, address: str) -> None:
    try:
        await opened.throttle.enter(account=email, address=address)
    except TooMany:
        opened.metrics.login("limited")
        raise


async def _check(opened: Resources, email: str, address: str, password: str, stored: str | None) -> Check:
    """Compare a password; when there was no room to, the throttle forgets that it was tried."""
    try:
        return await opened.passwords.check(password, stored)
    except Unavailable:
        await opened.throttle.take_back(account=email, address=address)
        raise


def _account(user: User) -> dict[str, object]:
    return {
        "id": user.id,
        "email": user.email,
        "role": user.role,
        "created_at": user.created_at,
        "last_login_at": user.last_login_at,
    }


def _tokens(opened: Resources, user: User, session_id: UUID, refresh_token: str) -> Response:
    return respond(
        {
            "access_token": opened.tokens.issue(user, session_id=session_id),
            "token_type": "Bearer",
            "expires_in": opened.tokens.ttl_s,
            "refresh_token": refresh_token,
        }
    )


def _lifetimes(opened: Resources) -> refresh.Lifetimes:
    settings = opened.settings
    return refresh.Lifetimes(idle_s=settings.refresh_idle_ttl_s, absolute_s=settings.refresh_absolute_ttl_s)
