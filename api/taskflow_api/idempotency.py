"""The header Idempotency-Key, as endpoints receive it."""

import re
from typing import Annotated

from fastapi import Depends, Header
from starlette.requests import Request

from taskflow_api.heads import headers
from taskflow_core.errors import FieldProblem, Invalid
from taskflow_core.idempotency import HEADER

NAME = HEADER.lower().encode()
MAX_LENGTH = 255
VISIBLE_ASCII = re.compile(rf"[\x21-\x7e]{{1,{MAX_LENGTH}}}")
REPLAYED = {"Idempotent-Replayed": "true"}

DESCRIPTION = "Makes a repeated request do its work once."

Described = Annotated[str | None, Header(alias=HEADER, description=DESCRIPTION)]


def key_of(request: Request) -> str | None:
    """Return the request's key, or None when it has none.

    Raises:
        Invalid: the header is there twice, or is not 1 to 255 visible ASCII characters.
    """
    keys = headers(request.scope, NAME)
    if not keys:
        return None
    if len(keys) > 1 or VISIBLE_ASCII.fullmatch(keys[0]) is None:
        message = f"must be given once and hold 1 to {MAX_LENGTH} visible ASCII characters, such as a UUID"
        raise Invalid(f"the header {HEADER} is not valid", [FieldProblem(HEADER, message)])
    return keys[0]


async def idempotency_key(request: Request, _described: Described = None) -> str | None:
    """Return the request's key as `key_of` does; a coroutine, because FastAPI calls functions in threads."""
    return key_of(request)


IdempotencyKey = Annotated[str | None, Depends(idempotency_key)]
