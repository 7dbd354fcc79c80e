"""Whatever the OpenAPI document allows, forbids or leaves open: the running API answers as the document says."""

import asyncio
import json
import re
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
from pydantic import SecretStr
from redis import Redis
from schemathesis import Case
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import negative_data_rejection, unsupported_method
from sqlalchemy import update
from sqlmodel import col

from api_app import PASSWORD, REGISTRY, api_settings
from taskflow_api.app import create_app
from taskflow_api.document import render
from taskflow_cli.embedded.ports import free_port
from taskflow_core.database import create_engine, create_sessions
from taskflow_core.models.users import Role, User
from taskflow_core.settings import Settings
from waiting import eventually

# What a schema cannot say is 422 too: that an address exists, a cron expression fires, a payload fits its task type.
ACCEPTED = ["2xx", "304", "401", "403", "404", "409", "412", "422", "429"]
CONFIG = SchemathesisConfig.from_dict({"checks": {"positive_data_acceptance": {"expected-statuses": ACCEPTED}}})
schema = schemathesis.openapi.from_dict(json.loads(render()), config=CONFIG)


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


# The path of a verb is also that of a resource whose id is wrong, for methods that the verb does not know.
VERB = re.compile(r":[a-zA-Z]+$")
# Their success ends every access token of who asks.
END_TOKENS = {"logout_all", "change_password"}
# Each item of a batch has an answer of its own: a wrong one is named inside a 200.
ANSWERS_BY_ITEM = {"create_batch_tasks"}


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
    left_out: list[Any] = [unsupported_method] if VERB.search(case.operation.path) else []
    if operation["operationId"] in ANSWERS_BY_ITEM:
        left_out.append(negative_data_rejection)
    headers = {"Authorization": f"Bearer {token}"}
    case.call_and_validate(base_url=server.url, headers=headers, excluded_checks=left_out)
