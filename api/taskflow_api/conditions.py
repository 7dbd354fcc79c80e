"""Conditional requests (RFC 9110, section 13): If-Match before a change, If-None-Match before a read."""

import re
from typing import Annotated

from fastapi import Depends, Header
from starlette.requests import Request
from starlette.responses import Response

from taskflow_core.errors import FieldProblem, Invalid
from taskflow_core.versions import Expected

ANY = "*"
MAX_TAGS = 100
# An element of the list: an entity tag, weak or strong; lists may hold empty elements.
ELEMENT = re.compile(r'[ \t,]*(?P<weak>W/)?"(?P<tag>[\x21\x23-\x7e\x80-\xff]*)"[ \t]*(?:,[ \t,]*|$)')

IfMatchHeader = Annotated[
    str | None, Header(alias="If-Match", description="Change it only if its ETag is still one of these.")
]
IF_NONE_MATCH = "If-None-Match"
KNOWN = "Answer 304 if its ETag is one of these."
IfNoneMatchHeader = Annotated[str | None, Header(alias=IF_NONE_MATCH, description=KNOWN)]


async def if_match(request: Request, _described: IfMatchHeader = None) -> Expected:
    """Return the versions that the change may be made to; None for any. Weak tags never match (RFC 9110, 13.1.1).

    Raises:
        Invalid: the header is not a list of entity tags.
    """
    tags = _tags(request, "If-Match")
    return None if tags is None or ANY in tags else frozenset(tag for tag, is_weak in tags.items() if not is_weak)


def known_to(request: Request) -> Expected:
    """Return the versions that the client holds; None when it named none.

    Raises:
        Invalid: the header is not a list of entity tags.
    """
    tags = _tags(request, IF_NONE_MATCH)
    return None if tags is None else frozenset(tags)


async def if_none_match(request: Request, _described: IfNoneMatchHeader = None) -> Expected:
    """Return what `known_to` does; a coroutine, because FastAPI calls functions in threads."""
    return known_to(request)


IfMatch = Annotated[Expected, Depends(if_match)]
IfNoneMatch = Annotated[Expected, Depends(if_none_match)]


def etag(version: str | int) -> str:
    """Return a version as a strong entity tag."""
    return f'"{version}"'


def unchanged(version: str | int, known: Expected) -> Response | None:
    """Return the answer 304 if the client holds this version."""
    if known is None or not {str(version), ANY} & known:
        return None
    return Response(status_code=304, headers={"ETag": etag(version)})


def _tags(request: Request, header: str) -> dict[str, bool] | None:
    """Return each tag with whether it is weak, `{"*": False}`, or None when the header is absent."""
    lines = request.headers.getlist(header)
    if not lines:
        return None
    text = ", ".join(lines).strip()
    if text == ANY:
        return {ANY: False}
    tags: dict[str, bool] = {}
    at = 0
    while at < len(text):
        element = ELEMENT.match(text, at)
        if element is None or len(tags) >= MAX_TAGS or element["tag"] == ANY:
            break
        tags[element["tag"]] = tags.get(element["tag"], True) and element["weak"] is not None
        at = element.end()
    if at < len(text) or not tags:
        message = f'must be * or up to {MAX_TAGS} entity tags, such as "7"'
        raise Invalid(f"the header {header} is not valid", [FieldProblem(header, message)])
    return tags
