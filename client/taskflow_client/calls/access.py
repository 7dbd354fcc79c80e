"""Operations on accounts, sessions and API keys."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from taskflow_client.call import Call, given, model, nothing, segment
from taskflow_client.models import ApiKey, Items, NewApiKey, Page, SecurityEvent, Session, TokenPair, User

Id = str | UUID


def register(email: str, password: str) -> Call[User]:
    """Create an account."""
    body = {"email": email, "password": password}
    return Call("POST", "/auth/register", model(User), body=body, anonymous=True)


def login(email: str, password: str) -> Call[TokenPair]:
    """Trade an email address and a password for tokens."""
    body = {"email": email, "password": password}
    return Call("POST", "/auth/login", model(TokenPair), body=body, anonymous=True)


def refresh_tokens(refresh_token: str) -> Call[TokenPair]:
    """Trade a refresh token for the next one and a new access token."""
    body = {"refresh_token": refresh_token}
    return Call("POST", "/auth/refresh", model(TokenPair), body=body, anonymous=True)


def logout(refresh_token: str) -> Call[None]:
    """End the session that the refresh token belongs to."""
    body = {"refresh_token": refresh_token}
    return Call("POST", "/auth/logout", nothing, body=body, anonymous=True)


def logout_all() -> Call[None]:
    """End every session and access token of one's own."""
    return Call("POST", "/auth/logout-all", nothing)


def me() -> Call[User]:
    """Return the account whose token this is."""
    return Call("GET", "/auth/me", model(User))


def change_password(old_password: str, new_password: str) -> Call[TokenPair]:
    """Replace the password; every other session ends."""
    body = {"old_password": old_password, "new_password": new_password}
    return Call("POST", "/auth/password", model(TokenPair), body=body)


def list_sessions() -> Call[Items[Session]]:
    """Return one's own sessions, the last used first."""
    return Call("GET", "/auth/sessions", model(Items[Session]))


def end_session(session_id: Id) -> Call[None]:
    """End one of one's own sessions."""
    return Call("DELETE", f"/auth/sessions/{segment(session_id)}", nothing)


def create_api_key(name: str, scopes: Sequence[str], *, expires_at: datetime | None = None) -> Call[NewApiKey]:
    """Make a key; the answer is the only one that holds it."""
    body = given(name=name, scopes=list(scopes), expires_at=expires_at)
    return Call("POST", "/api-keys", model(NewApiKey), body=body)


def list_keys() -> Call[Items[ApiKey]]:
    """Return one's own keys that are not revoked, newest first."""
    return Call("GET", "/api-keys", model(Items[ApiKey]))


def revoke_api_key(key_id: Id) -> Call[None]:
    """Revoke a key of one's own."""
    return Call("DELETE", f"/api-keys/{segment(key_id)}", nothing)


def list_users(
    *,
    email: str | None = None,
    role: str | None = None,
    disabled: bool | None = None,
    limit: int = 100,
    cursor: str | None = None,
) -> Call[Page[User]]:
    """Return accounts, newest first; `email` is how the address begins. For ADMIN."""
    query = given(email=email, role=role, disabled=disabled, limit=limit, cursor=cursor)
    return Call("GET", "/admin/users", model(Page[User]), query=query)


def get_user(user_id: Id) -> Call[User]:
    """Return one account. For ADMIN."""
    return Call("GET", f"/admin/users/{segment(user_id)}", model(User))


def change_user(user_id: Id, *, role: str | None = None, disabled: bool | None = None) -> Call[User]:
    """Give an account another role, disable it or enable it. For ADMIN."""
    body = given(role=role, disabled=disabled)
    return Call("PATCH", f"/admin/users/{segment(user_id)}", model(User), body=body)


def list_security_events(
    *, user_id: Id | None = None, kind: str | None = None, limit: int = 100, cursor: str | None = None
) -> Call[Page[SecurityEvent]]:
    """Return what happened to accounts and access, newest first. For ADMIN."""
    query = given(user_id=user_id, kind=kind, limit=limit, cursor=cursor)
    return Call("GET", "/admin/security-events", model(Page[SecurityEvent]), query=query)
