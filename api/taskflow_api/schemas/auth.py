"""Bodies of /auth."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from taskflow_core.models.users import Role
from taskflow_core.passwords import MAX_CHARACTERS, MIN_CHARACTERS


def _right_length(password: SecretStr) -> SecretStr:
    if not MIN_CHARACTERS <= len(password.get_secret_value()) <= MAX_CHARACTERS:
        raise ValueError(f"must have {MIN_CHARACTERS} to {MAX_CHARACTERS} characters")
    return password


NewPassword = Annotated[
    SecretStr,
    Field(json_schema_extra={"minLength": MIN_CHARACTERS, "maxLength": MAX_CHARACTERS}),
    AfterValidator(_right_length),
]


Email = Annotated[
    str, Field(max_length=254, examples=["ada@example.com"], json_schema_extra={"format": "email", "minLength": 3})
]


class Registration(BaseModel):
    """POST /auth/register."""

    model_config = ConfigDict(extra="forbid")

    email: Email
    password: NewPassword


class Credentials(BaseModel):
    """POST /auth/login."""

    model_config = ConfigDict(extra="forbid")

    email: Email
    password: SecretStr = Field(min_length=1, max_length=MAX_CHARACTERS)


class PasswordChange(BaseModel):
    """POST /auth/password."""

    model_config = ConfigDict(extra="forbid")

    old_password: SecretStr = Field(min_length=1, max_length=MAX_CHARACTERS)
    new_password: NewPassword


class RefreshBody(BaseModel):
    """POST /auth/refresh and /auth/logout."""

    model_config = ConfigDict(extra="forbid")

    refresh_token: SecretStr = Field(min_length=1, max_length=200)


class TokenPair(BaseModel):
    """What login, refresh and a change of the password answer; `expires_in` is the access token's, in seconds."""

    access_token: str
    token_type: str = "Bearer"  # noqa: S105 - the scheme's name
    expires_in: int
    refresh_token: str


class Account(BaseModel):
    """A user, as they see themselves."""

    id: UUID
    email: str
    role: Role
    created_at: datetime
    last_login_at: datetime | None


class SessionResource(BaseModel):
    """A session: where and when its newest refresh token was given; `current` is that of the access token."""

    id: UUID
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    user_agent: str
    address: str
    current: bool


class SessionList(BaseModel):
    """One's own sessions that can go on, the last used first; up to 100."""

    items: list[SessionResource]
