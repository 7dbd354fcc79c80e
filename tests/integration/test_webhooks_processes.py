"""Webhooks sent by real schedulers, of tasks that a real worker ran."""

import json
import threading
from collections import Counter
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest
from redis.asyncio import Redis
from sqlalchemy import text

from children import Children, Client
from http_server import Answer, Asked, serving
from taskflow_core import webhooks
from taskflow_core.addresses import AllowList
from taskflow_core.database import Sessions
from taskflow_core.models.users import User
from taskflow_core.queue import DeliveryQueue, connect_redis
from taskflow_core.sealing import Sealer
from taskflow_core.settings import Settings
from taskflow_core.webhook_urls import UrlRules
from taskflow_core.webhooks import NewWebhook, WebhookKind
from waiting import eventually, eventually_async

OLD_KEY, KEY = "o" * 32, "k" * 32
RULES = UrlRules(AllowList.parse("127.0.0.1"), allow_http=True)


@pytest.fixture
async def redis(settings: Settings) -> AsyncIterator[Redis]:
    redis = connect_redis(settings)
    yield redis
    await redis.aclose()


@pytest.fixture
async def client(sessions: Sessions, redis: Redis) -> Client:
    client = Client(sessions, DeliveryQueue(redis))
    async with sessions() as session:
        session.add(User(id=client.actor.user_id, email=f"{uuid4()}@example.com", password_hash="x"))
        await session.commit()
    return client


def scheduler(nursery: Children, key: str = KEY, **more: str) -> None:
    nursery.scheduler(webhook_key=key, fetch_allow_hosts="127.0.0.1", sweep_interval_s="0.1", **more)


async def hook(client: Client, url: str, *, key: str = KEY, kind: WebhookKind = WebhookKind.COMPLETED) -> UUID:
    new = NewWebhook(url=url, kinds=[kind], types=[], queues=[])
    async with client.sessions() as session:
        made, _ = await webhooks.create(
            session, new, actor=client.actor, sealer=Sealer([key.encode()]), rules=RULES, most=9
        )
        await session.commit()
    return made.id


async def test_what_a_worker_finished_arrives_once_from_several_schedulers(client: Client, nursery: Children) -> None:
    for _ in range(2):
        scheduler(nursery)
    nursery.worker()
    with serving(lambda _: Answer(200)) as server:
        await hook(client, server.url())
        done = [await client.submit("ECHO") for _ in range(20)]
        await hook(client, server.url("/failed"), kind=WebhookKind.FAILED)
        await client.submit("RAISE", max_attempts=1)
        eventually(lambda: len(server.asked) >= 21)
        await eventually_async(lambda: nothing_waits(client))
    bodies = [json.loads(asked.body)["data"] for asked in server.asked if asked.path == "/"]
    assert Counter(body["task"]["id"] for body in bodies) == Counter(map(str, done))
    (failure,) = [json.loads(asked.body) for asked in server.asked if asked.path == "/failed"]
    assert failure["type"] == "task.failed"
    assert set(failure["data"]["error"]) == {"code", "message"}


async def nothing_waits(client: Client) -> bool:
    async with client.sessions() as session:
        waiting = await session.execute(text("SELECT count(*) FROM webhook_deliveries WHERE delivered_at IS NULL"))
        return bool(waiting.scalar_one() == 0)


async def test_what_a_killed_scheduler_was_sending_is_sent_by_another_under_the_same_id(
    client: Client, nursery: Children
) -> None:
    over = threading.Event()

    def answer(_: Asked) -> Answer:
        over.wait(20)
        return Answer(200)

    scheduler(nursery)
    with serving(answer) as server:
        try:
            await hook(client, server.url(), kind=WebhookKind.CREATED)
            await client.submit("ECHO", deliver=False)
            eventually(lambda: len(server.asked) == 1)
            nursery.started[0].kill()
        finally:
            over.set()
        async with client.sessions() as session:  # what a minute does
            await session.execute(text("UPDATE webhook_deliveries SET next_attempt_at = now()"))
            await session.commit()
        scheduler(nursery)
        await eventually_async(lambda: nothing_waits(client))
        assert len({asked.headers["webhook-id"] for asked in server.asked}) == 1
        assert len(server.asked) == 2


async def test_secrets_are_encrypted_anew_and_the_key_of_before_can_go(client: Client, nursery: Children) -> None:
    with serving(lambda _: Answer(200)) as server:
        await hook(client, server.url(), key=OLD_KEY, kind=WebhookKind.CREATED)
        scheduler(nursery, webhook_previous_key=OLD_KEY)
        nursery.started[0].wait_for("webhooks.resealed")
        assert nursery.started[0].stop() == 0
        scheduler(nursery)
        await client.submit("ECHO", deliver=False)
        await eventually_async(lambda: sent(client))
        assert len(server.asked) == 1


async def sent(client: Client) -> bool:
    async with client.sessions() as session:
        delivered = await session.execute(text("SELECT count(delivered_at) FROM webhook_deliveries"))
        return bool(delivered.scalar_one() == 1)


async def test_a_secret_whose_key_is_gone_is_said_and_nothing_is_sent_unsigned(
    client: Client, nursery: Children
) -> None:
    with serving(lambda _: Answer(200)) as server:
        await hook(client, server.url(), key=OLD_KEY, kind=WebhookKind.CREATED)
        scheduler(nursery)
        nursery.started[0].wait_for("webhooks.key_missing")
        await client.submit("ECHO", deliver=False)
        nursery.started[0].wait_for("webhook.sent")
        assert server.asked == []
    assert nursery.started[0].stop() == 0


async def test_a_scheduler_without_a_key_says_that_webhooks_are_off(nursery: Children) -> None:
    assert nursery.scheduler().said("webhooks.off")
