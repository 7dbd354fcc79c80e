"""/docs: the API described for people."""

import asyncio
from functools import cache

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from taskflow_api.reference import reading

# Nothing but the style sheet is loaded, and nothing runs.
POLICY = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

router = APIRouter(include_in_schema=False)


@router.get("/docs")
async def docs(request: Request) -> Response:
    """Return the page; it is made once."""
    app = request.app
    if not hasattr(app.state, "docs_page"):
        app.state.docs_page = await asyncio.to_thread(lambda: reading.page(app.openapi()))
    return Response(app.state.docs_page, media_type="text/html", headers={"Content-Security-Policy": POLICY})


@router.get("/docs/style.css")
async def style() -> Response:
    """Return the page's style sheet."""
    return Response(_style(), media_type="text/css")


@cache
def _style() -> str:
    return reading.style()
