"""An owner with webhooks, tasks and events, for tests of what is sent."""

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import psycopg
from pydantic import SecretStr
from sqlalchemy import text

from fake_context import add_task
from taskflow_core import delivery_log, webhooks
from taskflow_core.actors import Actor
from taskflow_core.addresses import AllowList
from taskflow_core.database import Sessions, plain_url
from taskflow_core.delivery_log import state_of
from taskflow_core.models.runtime import WebhookDelivery, WebhookEndpoint
from taskflow_core.models.users import Role
from taskflow_core.sealing import sealer_of
from taskflow_core.settings import SchedulerSettings, Settings
from taskflow_core.webhook_urls import UrlRules
from taskflow_core.webhooks import NewWebhook, WebhookKind
from waiting import eventually_async

KEY = SecretStr("k" * 32)
RULES = UrlRules(AllowList.parse("127.0.0.1"), allow_http=True)
EVENT = "INSERT INTO task_events (task_id, owner_id, kind, attempt, data) VALUES (%s, %s, %s, 1, %s)"


def scheduler_settings(settings: Settings, **changes: Any) -> SchedulerSettings:
    own = {"webhook_key": KEY, "fetch_allow_hosts": "127.0.0.1", "sweep_interval_s": 0.1}
    return SchedulerSettings(**(settings.model_dump() | own | changes))


@dataclass
class Stage:
    """One owner with webhooks, tasks and events, and what became of them."""

    settings: SchedulerSettings
    sessions: Sessions
    owner: UUID
    secrets: dict[UUID, str] = field(default_factory=dict)

    @property
    def actor(self) -> Actor:
        return Actor(self.owner, Role.USER)

    async def hook(self, url: str, *kinds: WebhookKind, types: list[str] | None = None, **more: Any) -> UUID:
        new = NewWebhook(url=url, kinds=list(kinds) or [WebhookKind.COMPLETED], types=types or [], queues=[])
        sealer = sealer_of(self.settings)
        assert sealer is not None
        async with self.sessions() as session:
            webhook, secret = await webhooks.create(
                session, new, actor=self.actor, sealer=sealer, rules=RULES, most=100, **more
            )
            await session.commit()
        self.secrets[webhook.id] = secret
        return webhook.id

    async def event(self, kind: str = "task.completed", *, type_: str = "ECHO", **columns: Any) -> UUID:
        task_id = await add_task(self.sessions, self.owner, type_, lane="default", **columns)
        async with await psycopg.AsyncConnection.connect(self.url, autocommit=True) as connection:
            await connection.execute(EVENT, [task_id, self.owner, kind, None])
        return task_id

    @property
    def url(self) -> str:
        return plain_url(self.settings.database_url)

    async def deliveries(self, hook: UUID) -> list[WebhookDelivery]:
        async with self.sessions() as session:
            page = await delivery_log.deliveries_after(session, hook, actor=self.actor, limit=100, after=None)
        return page.deliveries

    async def state(self, hook: UUID) -> list[str]:
        return sorted(state_of(one) for one in await self.deliveries(hook))

    async def endpoint(self, hook: UUID) -> WebhookEndpoint:
        async with self.sessions() as session:
            return await webhooks.get(session, hook, actor=self.actor)

    async def until(self, hook: UUID, *states: str) -> list[WebhookDelivery]:
        """Wait until the deliveries of a webhook are in these states."""

        async def look() -> bool:
            return await self.state(hook) == sorted(states)

        await eventually_async(look)
        return await self.deliveries(hook)

    async def sql(self, statement: str, **parameters: Any) -> None:
        async with self.sessions() as session:
            await session.execute(text(statement), parameters)
            await session.commit()
