"""/api-keys: keys for programs, each with its scopes; made and revoked with an access token only."""

from typing import Any
from uuid import UUID

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from taskflow_api.body import read
from taskflow_api.dependencies import CurrentActor, Opened, Session, origin_of
from taskflow_api.openapi import takes
from taskflow_api.rendering import respond
from taskflow_api.schemas.api_keys import ApiKeyList, CreatedApiKey, NewApiKeyBody
from taskflow_core import api_keys
from taskflow_core.api_keys import NewKey
from taskflow_core.models.access import ApiKey

PREFIX = "/api/v1/api-keys"

router = APIRouter(prefix=PREFIX, tags=["api-keys"])


@router.post("", status_code=201, responses={201: {"model": CreatedApiKey}}, openapi_extra=takes(NewApiKeyBody))
async def create(request: Request, actor: CurrentActor, session: Session) -> Response:
    """Make a key. This answer is the only one that holds it."""
    body = await read(request, NewApiKeyBody)
    new = NewKey(name=body.name, scopes=body.scopes, expires_at=body.expires_at)
    key, token = await api_keys.create(session, new, actor=actor, origin=origin_of(request))
    await session.commit()
    return respond({**_body(key), "key": token}, status=201, headers={"Location": f"{PREFIX}/{key.id}"})


@router.get("", responses={200: {"model": ApiKeyList}})
async def list_keys(actor: CurrentActor, session: Session) -> Response:
    """Return one's own keys that are not revoked, newest first."""
    return respond({"items": [_body(key) for key in await api_keys.list_own(session, actor=actor)]})


@router.delete("/{key_id}", status_code=204)
async def revoke(key_id: UUID, request: Request, opened: Opened, actor: CurrentActor, session: Session) -> Response:
    """Revoke a key of one's own."""
    key_hash = await api_keys.revoke(session, key_id, actor=actor, origin=origin_of(request))
    await session.commit()
    opened.admission.forget_key(key_hash)
    return Response(status_code=204)


def _body(key: ApiKey) -> dict[str, Any]:
    """Return the fields of ApiKeyResource."""
    return {
        "id": key.id,
        "name": key.name,
        "hint": key.hint,
        "scopes": key.scopes,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "last_used_at": key.last_used_at,
    }
