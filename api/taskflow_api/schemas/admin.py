"""Bodies, queries and answers of /admin."""

from datetime import datetime
from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from taskflow_api.schemas.documented import given, only_given
from taskflow_api.schemas.tasks import NO_CONTROLS
from taskflow_core.models.users import Role
from taskflow_core.security_events import EventKind

MAX_ID = 2**63 - 1


class UserListQuery(BaseModel):
    """GET /admin/users: `email` is how the address begins."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=20, ge=1, le=100)
    cursor: UUID | None = None
    email: str | None = Field(default=None, min_length=1, max_length=254, pattern=NO_CONTROLS)
    role: Role | None = None
    disabled: bool | None = None


class UserChangeBody(BaseModel):
    """PATCH /admin/users/{id}: a role, a state, or both."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=only_given)

    role: Role | None = Field(default=None, examples=[Role.OPERATOR])
    disabled: bool | None = Field(default=None, strict=True)

    _some_value = field_validator("role", "disabled", mode="before")(given)

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("give role, disabled, or both")
        return self


class UserResource(BaseModel):
    """An account, as an ADMIN sees it."""

    id: UUID
    email: str
    role: Role
    disabled: bool
    disabled_at: datetime | None
    last_login_at: datetime | None
    created_at: datetime
    updated_at: datetime


class UserList(BaseModel):
    """A page of accounts, newest first."""

    items: list[UserResource]
    next_cursor: UUID | None


class SecurityEventListQuery(BaseModel):
    """GET /admin/security-events."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=20, ge=1, le=100)
    cursor: int | None = Field(default=None, ge=1, le=MAX_ID)
    user_id: UUID | None = None
    kind: EventKind | None = None


class SecurityEventResource(BaseModel):
    """Something that happened to the account `user_id`, done by `actor_id` (null: nobody known)."""

    id: str
    kind: EventKind
    user_id: UUID | None
    actor_id: UUID | None
    address: str
    user_agent: str
    request_id: str
    data: dict[str, Any]
    created_at: datetime


class SecurityEventList(BaseModel):
    """A page of security events, newest first."""

    items: list[SecurityEventResource]
    next_cursor: str | None
