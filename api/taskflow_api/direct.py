"""Busy routes: documented like all others, but their endpoints take the request itself and return the response.

FastAPI's way from a request to an endpoint's arguments costs more than all the rest of a busy endpoint.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import request_response

from taskflow_api.openapi import operation_id

Endpoint = Callable[[Request], Awaitable[Response]]


class Direct(APIRoute):
    """A route that calls its endpoint with nothing but the request; `described` is FastAPI's, for the documentation."""

    def __init__(self, path: str, endpoint: Endpoint, **described: Any) -> None:
        super().__init__(path, endpoint, generate_unique_id_function=operation_id, **described)
        self.app = request_response(endpoint)
