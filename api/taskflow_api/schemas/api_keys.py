"""Bodies and answers of /api-keys."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from taskflow_api.schemas.tasks import NO_CONTROLS, Moment
from taskflow_core.scopes import SCOPES


def _known(scope: str) -> str:
    if scope not in SCOPES:
        raise ValueError(f"must be one of: {', '.join(SCOPES)}")
    return scope


def _different(scopes: list[str]) -> list[str]:
    if len(set(scopes)) != len(scopes):
        raise ValueError("must name each scope once")
    return scopes


Scope = Annotated[str, AfterValidator(_known), Field(json_schema_extra={"enum": list(SCOPES)})]


class NewApiKeyBody(BaseModel):
    """POST /api-keys: without `expires_at` (a time with its zone, at most 366 days ahead) a key lives for 90 days."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=100, pattern=NO_CONTROLS, examples=["nightly import"])
    scopes: Annotated[list[Scope], AfterValidator(_different)] = Field(
        min_length=1, max_length=len(SCOPES), examples=[["tasks:read", "tasks:write"]]
    )
    expires_at: Moment | None = None


class ApiKeyResource(BaseModel):
    """A key; `hint` is how it begins. `last_used_at` is exact to a minute."""

    id: UUID
    name: str
    hint: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None


class CreatedApiKey(ApiKeyResource):
    """A new key with its text, `key`, which is shown this once."""

    key: str


class ApiKeyList(BaseModel):
    """One's own keys that are not revoked, newest first; up to 50."""

    items: list[ApiKeyResource]
