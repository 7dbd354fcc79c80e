"""Busy routes: documented like all others, but answered before FastAPI's middleware, routing and dependencies.

These cost more than all the rest of a busy request. The endpoint takes the request itself and returns the response.
"""

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, request_response
from starlette.types import ASGIApp, Receive, Scope, Send

from taskflow_api.openapi import operation_id
from taskflow_api.trail import finish

Endpoint = Callable[[Request], Awaitable[Response]]


class Direct(APIRoute):
    """A route that calls its endpoint with nothing but the request; `described` is FastAPI's, for the documentation."""

    def __init__(self, path: str, endpoint: Endpoint, **described: Any) -> None:
        super().__init__(path, endpoint, generate_unique_id_function=operation_id, **described)
        # An id holds no colon: `/tasks/{id}:cancel` is a verb's address, whatever the method.
        self.path_regex = re.compile(self.path_regex.pattern.replace("[^/]+", "[^/:]+"))
        self.app = request_response(endpoint)
        self.answer = endpoint


class ShortWay:
    """Finds the busy route of a request and answers it; errors are left to whoever calls."""

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        self._exact: dict[tuple[str, str], Direct] = {}
        self._patterns: list[Direct] = []
        for route in routes:
            if not isinstance(route, Direct):
                raise TypeError(f"{route} is no busy route")
            if route.param_convertors:
                self._patterns.append(route)
            else:
                self._exact |= {(method, route.path): route for method in route.methods or ()}

    def find(self, scope: Scope) -> bool:
        """Put the route and what its path holds into the scope, or return False when no busy route is meant."""
        route = self._exact.get((scope["method"], scope["path"]))
        if route is not None:
            scope["route"] = route
            return True
        for route in self._patterns:
            if scope["method"] in (route.methods or ()) and (parts := route.path_regex.match(scope["path"])):
                scope["route"], scope["path_params"] = route, parts.groupdict()
                return True
        return False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request whose route was found."""
        response = await scope["route"].answer(Request(scope, receive, send))
        await response(scope, receive, send)


class Api(FastAPI):
    """FastAPI with a way around it: `short_way` leads through `around`, its middleware, and past all else."""

    short_way: ShortWay
    around: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer whatever uvicorn brings."""
        if scope["type"] == "http" and self.short_way.find(scope):
            scope["app"] = self
            await self.around(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)
            await finish(scope, receive)
