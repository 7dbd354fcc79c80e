"""/auth: accounts and the tokens of their sessions."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from taskflow_api.body import read
from taskflow_api.dependencies import CurrentActor, Opened, Resources, Session
from taskflow_api.openapi import takes
from taskflow_api.rendering import respond
from taskflow_api.schemas.auth import Account, Credentials, RefreshBody, Registration, TokenPair
from taskflow_core import refresh, users
from taskflow_core.errors import InvalidToken, Unauthenticated
from taskflow_core.models.users import User

router = APIRouter(prefix="/api/v1/auth", tags=["auth"])

WRONG_CREDENTIALS = "the email address or the password is wrong"


@router.post("/register", status_code=201, responses={201: {"model": Account}}, openapi_extra=takes(Registration))
async def register(request: Request, opened: Opened, session: Session) -> Response:
    """Make an account with the role USER."""
    body = await read(request, Registration)
    email = users.normalise_email(body.email)
    password_hash = await opened.passwords.hash(body.password.get_secret_value())
    user = await users.register(session, email=email, password_hash=password_hash)
    await session.commit()
    return respond(_account(user), status=201, headers={"Location": "/api/v1/auth/me"})


@router.post("/login", responses={200: {"model": TokenPair}}, openapi_extra=takes(Credentials))
async def login(request: Request, opened: Opened, session: Session) -> Response:
    """Trade an email address and a password for an access token and a refresh token."""
    body = await read(request, Credentials)
    email, address = users.normalise_email(body.email), _address(request)
    await opened.throttle.enter(account=email, address=address)
    user = await users.find(session, email)
    await session.commit()  # a connection must not wait for bcrypt
    checked = await opened.passwords.check(body.password.get_secret_value(), user.password_hash if user else None)
    if user is None or not checked.right or user.disabled_at is not None:
        raise Unauthenticated(WRONG_CREDENTIALS)
    await opened.throttle.succeeded(account=email, address=address)
    await users.note_login(session, user.id, new_hash=checked.new_hash)
    token = await refresh.start(
        session,
        user.id,
        lifetimes=_lifetimes(opened),
        user_agent=request.headers.get("user-agent", ""),
        address=address,
    )
    await session.commit()
    return _tokens(opened, user, token)


@router.post("/refresh", responses={200: {"model": TokenPair}}, openapi_extra=takes(RefreshBody))
async def refresh_tokens(request: Request, opened: Opened, session: Session) -> Response:
    """Trade a refresh token for the next one and a new access token. A token used twice ends its session."""
    body = await read(request, RefreshBody)
    token = body.refresh_token.get_secret_value()
    renewal = await refresh.rotate(session, token, keyring=opened.keyring, lifetimes=_lifetimes(opened))
    await session.commit()  # also when it was refused: the family may have been revoked
    if renewal is None:
        raise InvalidToken("the refresh token is not valid; log in again")
    return _tokens(opened, renewal.user, renewal.token)


@router.post("/logout", status_code=204, openapi_extra=takes(RefreshBody))
async def logout(request: Request, session: Session) -> Response:
    """End the session of a refresh token; answers the same for one that has ended or never was."""
    body = await read(request, RefreshBody)
    await refresh.revoke(session, body.refresh_token.get_secret_value())
    await session.commit()
    return Response(status_code=204)


@router.get("/me", responses={200: {"model": Account}})
async def me(actor: CurrentActor, session: Session) -> Response:
    """Return the account that the access token names."""
    return respond(_account(await users.get_active(session, actor.user_id)))


def _account(user: User) -> dict[str, object]:
    return {
        "id": user.id,
        "email": user.email,
        "role": user.role,
        "created_at": user.created_at,
        "last_login_at": user.last_login_at,
    }


def _tokens(opened: Resources, user: User, refresh_token: str) -> Response:
    return respond(
        {
            "access_token": opened.tokens.issue(user),
            "token_type": "Bearer",
            "expires_in": opened.tokens.ttl_s,
            "refresh_token": refresh_token,
        }
    )


def _lifetimes(opened: Resources) -> refresh.Lifetimes:
    settings = opened.settings
    return refresh.Lifetimes(idle_s=settings.refresh_idle_ttl_s, absolute_s=settings.refresh_absolute_ttl_s)


def _address(request: Request) -> str:
    return request.client.host if request.client else ""
