"""Whatever the OpenAPI document allows, forbids or leaves open: the running API answers as the document says."""

import asyncio
import json
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase
from hypothesis import settings as how
from hypothesis.strategies import from_regex
from pydantic import SecretStr
from redis import Redis
from schemathesis import Case
from schemathesis.config import SchemathesisConfig
from sqlalchemy import update
from sqlmodel import col

from api_app import PASSWORD, REGISTRY, api_settings
from taskflow_api.app import create_app
from taskflow_api.document import render
from taskflow_api.openapi import TAGS_PATTERN
from taskflow_api.operations import operations
from taskflow_cli.embedded.ports import free_port
from taskflow_core.database import create_engine, create_sessions
from taskflow_core.models.users import Role, User
from taskflow_core.settings import Settings
from waiting import eventually

# What may be answered to a request that is right: nothing has that id, or the state of things does not allow it.
ACCEPTED = ["2xx", "304", "401", "403", "404", "409", "412", "429"]
# Where a request that the document allows may be 422 all the same: what is wrong with it, no schema can say.
BEYOND_SCHEMAS = {
    "create_batch_tasks": "an Idempotency-Key must not have been used for another request",
    "create_task": "the type must be installed and its payload fit, a time lie ahead of 2200, and come alone",
    "clone_task": "as for a new task",
    "edit_task": "a time must lie between 2000 and 2200 and come alone",
    "create_schedule": "the expression must fire, the time zone exist, the payload fit its type",
    "edit_schedule": "as for a new schedule",
    "create_webhook": "the address must be https, and one that may be called",
    "change_webhook": "as for a new webhook",
    "create_api_key": "the end must lie ahead by at most a year",
    "change_password": "the old password must be that of today",
    "list_tasks": "a cursor must be one of ours, of this filter, and not come with a page; times have bounds",
    "bulk_cancel_tasks": "times have bounds",
    "bulk_retry_tasks": "times have bounds",
}
# Each item of a batch has an answer of its own: a wrong one is named inside a 200.
ANSWERS_BY_ITEM = ["create_batch_tasks"]
CONFIG = SchemathesisConfig.from_dict(
    {
        "generation": {"allow-x00": False},  # which PostgreSQL keeps in no text: 422 wherever it stands
        "checks": {"positive_data_acceptance": {"expected-statuses": ACCEPTED}},
        "operations": [
            {
                "include-operation-id": list(BEYOND_SCHEMAS),
                "checks": {"positive_data_acceptance": {"expected-statuses": [*ACCEPTED, "422"]}},
            },
            {"include-operation-id": ANSWERS_BY_ITEM, "checks": {"negative_data_rejection": {"enabled": False}}},
        ],
    }
)
# Headers are made of letters and digits alone, unless their format has a strategy: entity tags need their quotes.
TAGS_FORMAT, TAGGED = "entity-tags", ("If-Match", "If-None-Match")


def document() -> dict[str, Any]:
    made: dict[str, Any] = json.loads(render())
    for operation in operations(made):
        for parameter in operation.spec.get("parameters", []):
            if parameter["name"] in TAGGED:
                parameter["schema"]["format"] = TAGS_FORMAT
    return made


schemathesis.openapi.format(TAGS_FORMAT, from_regex(TAGS_PATTERN, fullmatch=True))
schema = schemathesis.openapi.from_dict(document(), config=CONFIG)


@dataclass
class Server:
    """The API on a port, and accounts of each role."""

    url: str

    redis_url: str

    def token(self, role: Role, *, mortal: bool = False) -> str:
        with Redis.from_url(self.redis_url) as client:
            client.flushall()  # the throttle remembers the logins that were tried
        body = {"email": email_of(role, mortal=mortal), "password": PASSWORD}
        answer = httpx2.post(f"{self.url}/api/v1/auth/login", json=body)
        assert answer.status_code == 200, answer.text
        token: str = answer.json()["access_token"]
        return token


# Their success ends every access token of who asks.
END_TOKENS = {"logout_all", "change_password"}


def email_of(role: Role, *, mortal: bool = False) -> str:
    return f"{role.lower()}{'-mortal' if mortal else ''}@example.com"


async def promote(settings: Settings, role: Role) -> None:
    engine = create_engine(settings, service="tests")
    async with create_sessions(engine)() as session:
        addresses = [email_of(role), email_of(role, mortal=True)]
        await session.execute(update(User).where(col(User.email).in_(addresses)).values(role=role))
        await session.commit()
    await engine.dispose()


@pytest.fixture(scope="module")
def server(module_settings: Settings) -> Iterator[Server]:
    port = free_port()
    opened = api_settings(module_settings, webhook_key=SecretStr(secrets.token_urlsafe(48)))
    app = create_app(opened, registry=REGISTRY)
    config = uvicorn.Config(app, port=port, log_config=None, lifespan="on")
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run)
    thread.start()
    eventually(lambda: running.started or not thread.is_alive())
    url = f"http://127.0.0.1:{port}"
    for role in (Role.USER, Role.ADMIN):
        for mortal in (False, True):
            body = {"email": email_of(role, mortal=mortal), "password": PASSWORD}
            assert httpx2.post(f"{url}/api/v1/auth/register", json=body).status_code == 201
    asyncio.run(promote(module_settings, Role.ADMIN))
    yield Server(url, module_settings.redis_url.get_secret_value())
    running.should_exit = True
    thread.join(timeout=30)


@pytest.fixture(scope="module", params=[Role.USER, Role.ADMIN])
def role(request: pytest.FixtureRequest) -> Role:
    chosen: Role = request.param
    return chosen


@pytest.fixture(scope="module")
def token(server: Server, role: Role) -> str:
    return server.token(role)


@schema.parametrize()
@how(
    max_examples=5,
    derandomize=True,  # a run that refuses a change must refuse it again
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
    database=None,
)
def test_the_api_answers_as_the_document_says(case: Case[Any], server: Server, role: Role, token: str) -> None:
    operation: dict[str, Any] = case.operation.definition.raw
    if operation["operationId"] in END_TOKENS:
        token = server.token(role, mortal=True)
    case.call_and_validate(base_url=server.url, headers={"Authorization": f"Bearer {token}"})


def test_the_exceptions_are_operations_that_there_are() -> None:
    known = {spec["operationId"] for path in schema.raw_schema["paths"].values() for spec in path.values()}
    assert {*BEYOND_SCHEMAS, *ANSWERS_BY_ITEM, *END_TOKENS} <= known
