"""Busy routes: documented like all others, but answered before FastAPI's middleware, routing and dependencies.

These cost more than all the rest of a busy request. The endpoint takes the request itself and returns the response.
"""

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, cast

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, request_response
from starlette.types import Receive, Scope, Send

from taskflow_api.body import BodyBounds
from taskflow_api.metrics import Metrics
from taskflow_api.openapi import operation_id
from taskflow_api.trail import CLIENT_LEFT, Visit, begin, end, finish

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
    """Finds the busy route of a request and answers it, with all that the middleware does for other routes."""

    def __init__(self, routes: Iterable[BaseRoute], *, bounds: BodyBounds, metrics: Metrics) -> None:
        self._bounds = bounds
        self._metrics = metrics
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
        visit = begin(scope, self._metrics)
        try:
            response = await self._response(scope, receive, visit)
            visit.status = response.status_code
            head = {"type": "http.response.start", "status": visit.status, "headers": visit.head(response.raw_headers)}
            await send(head)
            await send({"type": "http.response.body", "body": response.body})
        except ClientDisconnect:
            visit.status = visit.status or CLIENT_LEFT
        finally:
            end(scope, visit, self._metrics)

    async def _response(self, scope: Scope, receive: Receive, visit: Visit) -> Response:
        try:
            return await cast("Direct", scope["route"]).answer(Request(scope, self._bounds.keep(scope, receive)))
        except ClientDisconnect:
            raise
        except Exception as error:  # noqa: BLE001 - the last answer to whatever went wrong
            return visit.problem(error)


class Api(FastAPI):
    """FastAPI with a way around it."""

    short_way: ShortWay

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer whatever uvicorn brings."""
        if scope["type"] == "http" and self.short_way.find(scope):
            scope["app"] = self
            await self.short_way(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)
            await finish(scope, receive)
