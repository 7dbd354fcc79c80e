"""Builds the application; nothing is opened before its lifespan starts."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from http import HTTPStatus
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route, Router

from taskflow_api.body import BodyBounds, BodyLimit
from taskflow_api.dependencies import Resources
from taskflow_api.direct import Api, ShortWay
from taskflow_api.feed import Feed
from taskflow_api.limiter import RequestLimiter
from taskflow_api.metrics import Metrics
from taskflow_api.openapi import describe_api, operation_id
from taskflow_api.problems import describe
from taskflow_api.recent import Recent
from taskflow_api.routes import (
    admin,
    api_keys,
    auth,
    bulk,
    creation,
    docs,
    editing,
    events,
    health,
    queues,
    reading,
    schedules,
    stats,
    task_types,
    tasks,
    webhooks,
    workers,
)
from taskflow_api.throttle import Throttle
from taskflow_api.trail import RequestTrail
from taskflow_core import revisions
from taskflow_core.admission import Admission
from taskflow_core.database import create_engine, create_sessions
from taskflow_core.errors import Invalid, TaskFlowError
from taskflow_core.handlers import Registry
from taskflow_core.intake import Intake
from taskflow_core.keyring import Keyring
from taskflow_core.measures import DISTRIBUTION
from taskflow_core.passwords import Passwords
from taskflow_core.queue import DeliveryQueue, connect_redis
from taskflow_core.quotas import OpenTasks
from taskflow_core.reading import Reading
from taskflow_core.settings import ApiSettings
from taskflow_core.sharing import Shared
from taskflow_core.tokens import AccessTokens

DESCRIPTION = "Durable typed tasks, run by workers that follow the queue."
RECENT_S = 2.0
ROUTES = (
    auth,
    api_keys,
    admin,
    bulk,
    tasks,
    editing,
    events,
    task_types,
    schedules,
    webhooks,
    queues,
    workers,
    stats,
    health,
    docs,
)

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def create_app(settings: ApiSettings, *, registry: Registry) -> FastAPI:
    """Return the application; it accepts the task types of `registry`."""
    metrics = Metrics(types=registry.names())
    app = Api(
        title="TaskFlow",
        version=version(DISTRIBUTION),
        description=DESCRIPTION,
        lifespan=_lifespan(settings, registry, metrics),
        generate_unique_id_function=operation_id,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.openapi = partial(describe_api, app)  # type: ignore[method-assign] # FastAPI's documented way to extend it
    for kind in (TaskFlowError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, _answer)
    larger = {creation.BATCH_PATH: settings.max_batch_bytes}
    bounds = BodyBounds(settings.max_body_bytes, larger, settings.body_timeout_s)
    app.add_middleware(BodyLimit, bounds=bounds)
    app.add_middleware(RequestTrail, metrics=metrics)
    busy = [*creation.router.routes, *reading.router.routes]
    app.short_way = ShortWay(busy, bounds=bounds, metrics=metrics)
    app.router.routes.extend(busy)  # documented, and known when the method is wrong
    for module in ROUTES:
        app.include_router(module.router)
    return app


def _lifespan(settings: ApiSettings, registry: Registry, metrics: Metrics) -> Lifespan:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        opened = app.state.resources = _open(settings, registry, metrics)
        try:
            yield
        finally:
            await _close(opened)

    return lifespan


def _open(settings: ApiSettings, registry: Registry, metrics: Metrics) -> Resources:
    """Make what requests share; nothing is connected before it is used."""
    engine = create_engine(settings, service="api", lock_timeout_s=settings.database_timeout_s / 2)
    sessions = create_sessions(engine)
    redis = connect_redis(settings)
    queue = DeliveryQueue(redis, deferred=metrics.deferred)
    open_tasks = OpenTasks(limit=settings.max_pending_tasks)
    feed = Feed(settings)
    metrics.watch(engine=engine, streams=lambda: feed.open_streams, waits=lambda: feed.open_waits)
    keyring = _keyring(settings)
    tokens = AccessTokens(
        keyring, issuer=settings.jwt_issuer, audience=settings.jwt_audience, ttl_s=settings.access_token_ttl_s
    )
    return Resources(
        settings=settings,
        engine=engine,
        sessions=sessions,
        redis=redis,
        queue=queue,
        open_tasks=open_tasks,
        intake=Intake(settings, queue, open_tasks),
        reading=Reading(settings),
        pages=Shared(),
        registry=registry,
        keyring=keyring,
        tokens=tokens,
        admission=Admission(tokens, sessions, remembered_s=settings.access_cache_s),
        passwords=Passwords(rounds=settings.bcrypt_rounds),
        throttle=Throttle(redis, registrations=settings.registrations_per_minute),
        metrics=metrics,
        limiter=RequestLimiter(redis, per_minute=settings.requests_per_minute),
        recent=Recent(keep_s=RECENT_S),
        revisions=revisions.known(),
        feed=feed,
    )


async def _close(opened: Resources) -> None:
    await opened.intake.close()
    await opened.reading.close()
    await opened.feed.aclose()
    opened.passwords.close()
    await opened.redis.aclose()
    await opened.engine.dispose()


def _keyring(settings: ApiSettings) -> Keyring:
    secrets = (settings.jwt_secret, settings.jwt_previous_secret)
    return Keyring([secret.get_secret_value().encode() for secret in secrets if secret is not None])


async def _answer(request: Request, error: Exception) -> Response:
    methods: list[str] = []
    if isinstance(error, RequestValidationError | Invalid) or _is_refused_method(error):
        methods = _methods_of(request)
        if request.method not in methods:
            # Also where the address is a verb's, which was taken for that of an id: `{id}:pause`.
            error = HTTPException(405 if methods else 404)
    problem = describe(error)
    request.state.problem = problem.code
    if problem.status == HTTPStatus.METHOD_NOT_ALLOWED:
        problem.headers["Allow"] = ", ".join(methods)
    return problem.response(request.state.request_id)


def _is_refused_method(error: Exception) -> bool:
    return isinstance(error, HTTPException) and error.status_code == HTTPStatus.METHOD_NOT_ALLOWED


def _methods_of(request: Request) -> list[str]:
    """Return the methods that the address knows, none for a verb that there is not; the framework names other ones."""
    found = [route for route in _routes(request.app.router) if route.matches(request.scope)[0] is not Match.NONE]
    closest = max((route.path for route in found), key=len, default="")  # a verb's address fits a bare id's, too
    if closest.endswith("_id}") and ":" in request.url.path.rpartition("/")[2]:  # an id holds no colon
        return []
    return sorted({method for route in found if route.path == closest for method in route.methods or ()})


def _routes(router: Router) -> Iterator[Route]:
    for route in router.routes:
        if isinstance(route, Route):
            yield route
        elif isinstance(included := getattr(route, "original_router", None), Router):
            yield from _routes(included)
