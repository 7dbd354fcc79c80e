"""The API inside the test's process, over real PostgreSQL and Valkey, and what its tests share."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient, Response
from pydantic import BaseModel, SecretStr
from sqlalchemy import text, update
from sqlmodel import col

from taskflow_api.app import create_app
from taskflow_api.dependencies import Resources
from taskflow_core.handlers import Context, Registry, task_type
from taskflow_core.models.users import Role, User
from taskflow_core.settings import ApiSettings, Settings
from waiting import eventually_async

PASSWORD = "correct horse battery"
BLOCKED = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock' AND cardinality(pg_blocking_pids(pid)) > 0
"""
TABLES = ("tasks", "task_events", "users", "refresh_tokens")


class LetterPayload(BaseModel):
    to: list[str]
    copies: int = 1
    extra: dict[str, Any] = {}


class LetterResult(BaseModel):
    sent: int


@task_type("LETTER", timeout_s=77)
def letter(ctx: Context, payload: LetterPayload) -> LetterResult:
    """Write a letter."""
    return LetterResult(sent=payload.copies)


REGISTRY = Registry({"LETTER": letter})


def api_settings(settings: Settings, **changes: Any) -> ApiSettings:
    base = settings.model_dump() | {
        "jwt_secret": SecretStr(secrets.token_urlsafe(48)),
        "bcrypt_rounds": 4,
        "registrations_per_minute": 0,
    }
    return ApiSettings(**(base | changes))


@dataclass
class Person:
    """A registered user and their tokens."""

    id: str
    email: str
    access: str
    refresh: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.access}"}


@dataclass
class Api:
    """A running app, and a client that talks to it."""

    client: AsyncClient
    resources: Resources
    app: FastAPI

    async def login(self, email: str, password: str = PASSWORD) -> Response:
        return await self.client.post("/api/v1/auth/login", json={"email": email, "password": password})

    async def person(self, name: str = "ada", *, role: Role = Role.USER) -> Person:
        email = f"{name}@example.com"
        made = await self.client.post("/api/v1/auth/register", json={"email": email, "password": PASSWORD})
        assert made.status_code == 201, made.text
        if role is not Role.USER:
            await self.change_user(email, role=role)
        tokens = (await self.login(email)).json()
        return Person(made.json()["id"], email, tokens["access_token"], tokens["refresh_token"])

    async def change_user(self, email: str, **changes: Any) -> None:
        async with self.resources.sessions() as session:
            await session.execute(update(User).where(col(User.email) == email).values(changes))
            await session.commit()

    async def task(self, person: Person, **fields: Any) -> dict[str, Any]:
        body = {"type": "LETTER", "payload": {"to": ["ada"]}} | fields
        made = await self.client.post("/api/v1/tasks", json=body, headers=person.headers)
        assert made.status_code == 201, made.text
        created: dict[str, Any] = made.json()
        return created

    async def sql(self, statement: str, **parameters: Any) -> None:
        async with self.resources.sessions() as session:
            await session.execute(text(statement), parameters)
            await session.commit()

    async def fetch(self, statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
        async with self.resources.sessions() as session:
            return [tuple(row) for row in await session.execute(text(statement), parameters)]

    async def until_blocked(self, *, many: int = 1) -> None:
        """Wait until so many statements of this database wait for another transaction."""

        async def is_blocked() -> bool:
            ((waiting,),) = await self.fetch(BLOCKED)
            return int(waiting) >= many

        await eventually_async(is_blocked)

    async def rows(self) -> dict[str, int]:
        """Count the rows of the tables that requests write to."""
        async with self.resources.sessions() as session:
            return {name: await session.scalar(text(f"SELECT count(*) FROM {name}")) or 0 for name in TABLES}  # noqa: S608 - ours


@asynccontextmanager
async def running_api(settings: ApiSettings, registry: Registry = REGISTRY) -> AsyncIterator[Api]:
    """Run the app until the block ends."""
    app = create_app(settings, registry=registry)
    transport = ASGITransport(app=app, client=("127.0.0.1", 40_000))
    async with (
        app.router.lifespan_context(app),
        AsyncClient(transport=transport, base_url="http://taskflow.test") as client,
    ):
        yield Api(client, app.state.resources, app)
