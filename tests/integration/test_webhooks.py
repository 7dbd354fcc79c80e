"""Webhooks from event to receiver: signed, once an event, tried again, and never in each other's way."""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import text

from fake_context import add_task, add_user
from http_server import Answer, Asked, HttpServer, serving
from taskflow_core import deliveries, delivery_log, webhooks
from taskflow_core.clock import utc_now
from taskflow_core.database import Sessions, create_engine, create_sessions
from taskflow_core.probes import Pulse
from taskflow_core.sealing import sealer_of
from taskflow_core.settings import Settings
from taskflow_core.signatures import BadSignature, verify
from taskflow_core.webhooks import WebhookKind
from taskflow_worker.metrics import WebhookMetrics
from taskflow_worker.webhooks import Webhooks
from waiting import eventually, eventually_async
from webhook_stage import EVENT, Stage, scheduler_settings


@pytest.fixture(scope="module")
async def module_sessions(module_settings: Settings) -> AsyncIterator[Sessions]:
    engine = create_engine(module_settings, service="tests")
    yield create_sessions(engine)
    await engine.dispose()


@pytest.fixture(scope="module")
async def sender(module_settings: Settings) -> AsyncIterator[None]:
    """Run the scheduler's part that sends, in this process."""
    settings = scheduler_settings(module_settings)
    sealer = sealer_of(settings)
    assert sealer is not None
    stopping = asyncio.Event()
    part = Webhooks(settings, sealer, pulse=Pulse(), metrics=WebhookMetrics(CollectorRegistry()))
    running = asyncio.create_task(part.run(stopping))
    yield
    stopping.set()
    await running


@pytest.fixture
async def stage(module_settings: Settings, module_sessions: Sessions, sender: None) -> Stage:
    return Stage(scheduler_settings(module_settings), module_sessions, await add_user(module_sessions))


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliveries, "BACKOFF_BASE_S", 0.05)


def ok(_: Asked) -> Answer:
    return Answer(204)


def then(*answers: Answer) -> Callable[[Asked], Answer]:
    """Give these answers, and the last one for ever."""
    left = list(answers)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


def received(server: HttpServer) -> list[str]:
    return [json.loads(asked.body)["data"]["task"]["id"] for asked in server.asked]


async def test_an_event_arrives_once_signed_and_without_payload_or_result(stage: Stage) -> None:
    with serving(lambda _: Answer(200, b"thanks")) as server:
        hook = await stage.hook(server.url("/hook?a=b"))
        task_id = await stage.event(title="Hello", tags=["x"])
        (delivery,) = await stage.until(hook, "DELIVERED")
        (asked,) = server.asked
    assert (asked.method, asked.path, asked.headers["content-type"]) == ("POST", "/hook?a=b", "application/json")
    assert asked.headers["user-agent"].startswith("taskflow/")
    found = verify(asked.body, asked.headers, secret=stage.secrets[hook], now=utc_now().timestamp())
    assert found == str(delivery.id)
    body = json.loads(asked.body)
    assert body == delivery.body
    assert (body["type"], body["data"]["attempt"], body["data"]["error"]) == ("task.completed", 1, None)
    task = body["data"]["task"]
    assert (task["id"], task["title"], task["tags"], task["type"]) == (str(task_id), "Hello", ["x"], "ECHO")
    assert not {"payload", "result"} & task.keys()
    assert delivery.response is not None
    assert (delivery.response["status"], delivery.response["body"], delivery.attempt) == (200, "thanks", 1)
    with pytest.raises(BadSignature):
        verify(asked.body + b" ", asked.headers, secret=stage.secrets[hook], now=utc_now().timestamp())


async def test_a_webhook_gets_the_kinds_types_and_queues_it_asked_for_of_its_owner_from_its_making_on(
    stage: Stage,
) -> None:
    await stage.event()
    stranger = Stage(stage.settings, stage.sessions, await add_user(stage.sessions))
    with serving(ok) as some, serving(ok) as every:
        hook = await stage.hook(some.url(), WebhookKind.COMPLETED, WebhookKind.FAILED, types=["ECHO"])
        all_of_them = await stage.hook(every.url(), WebhookKind.ALL)
        await stage.sql("UPDATE webhook_endpoints SET queues = '{high}' WHERE id = :id", id=hook)
        await stranger.event(queue="high")
        wanted = [await stage.event("task.failed", queue="high"), await stage.event(queue="high")]
        other = [
            await stage.event("task.started", queue="high"),
            await stage.event(type_="OTHER", queue="high"),
            await stage.event(),
        ]
        await stage.until(all_of_them, *["DELIVERED"] * 5)
        await stage.until(hook, *["DELIVERED"] * 2)
        assert sorted(received(some)) == sorted(map(str, wanted))
        assert sorted(received(every)) == sorted(map(str, wanted + other))


async def test_what_was_not_accepted_is_sent_again_under_the_same_id(stage: Stage, soon: None) -> None:
    with serving(then(Answer(500, b"oops"), Answer(302, b"", {"Location": "/elsewhere"}), Answer(200))) as server:
        hook = await stage.hook(server.url())
        await stage.event()
        (delivery,) = await stage.until(hook, "DELIVERED")
        assert {asked.headers["webhook-id"] for asked in server.asked} == {str(delivery.id)}
        assert (server.paths(), delivery.attempt) == (["/", "/", "/"], 3)
        assert (await stage.endpoint(hook)).first_failure_at is None


async def test_the_wait_that_a_busy_receiver_asks_for_is_kept(stage: Stage) -> None:
    with serving(lambda _: Answer(429, b"", {"Retry-After": "1800"})) as server:
        hook = await stage.hook(server.url())
        await stage.event()
        await eventually_async(lambda: answered(stage, hook, 429))
        (delivery,) = await stage.deliveries(hook)
        assert delivery.next_attempt_at is not None
        assert delivery.next_attempt_at - utc_now() > timedelta(minutes=29)
        assert (await stage.endpoint(hook)).first_failure_at is not None


async def answered(stage: Stage, hook: UUID, status: int | None) -> bool:
    responses = [one.response for one in await stage.deliveries(hook)]
    return [response["status"] for response in responses if response is not None] == [status]


async def test_410_disables_a_webhook_gives_up_what_waits_and_tells_its_owner(stage: Stage) -> None:
    with serving(lambda _: Answer(410)) as server:
        hook = await stage.hook(server.url())
        await stage.event()
        await stage.until(hook, "FAILED")
        endpoint = await stage.endpoint(hook)
        assert endpoint.disabled_at is not None
        assert endpoint.disabled_reason == "it answered 410 Gone"
        await stage.event()
        async with stage.sessions() as session:
            await webhooks.enable(session, hook, actor=stage.actor)
            await session.commit()
        await stage.event()
        await stage.until(hook, "FAILED", "FAILED")
        kinds = "SELECT kind, data ->> 'reason' FROM security_events WHERE user_id = :id"
        async with stage.sessions() as session:
            told = (await session.execute(text(kinds), {"id": stage.owner})).all()
        assert set(map(tuple, told)) == {("webhook.disabled", "it answered 410 Gone")}


async def test_a_webhook_that_only_fails_is_disabled_after_its_days(stage: Stage) -> None:
    with serving(lambda _: Answer(503)) as server:
        hook = await stage.hook(server.url())
        await stage.sql(
            "UPDATE webhook_endpoints SET first_failure_at = now() - interval '73 hours' WHERE id = :id", id=hook
        )
        await stage.event()
        await stage.until(hook, "FAILED")
        assert (await stage.endpoint(hook)).disabled_reason == "no delivery has arrived for 3 days"


async def test_a_delivery_is_given_up_after_a_day_and_can_be_sent_by_hand(stage: Stage) -> None:
    with serving(then(Answer(500), Answer(200))) as server:
        hook = await stage.hook(server.url())
        async with stage.sessions() as session:
            delivery = await delivery_log.test(session, hook, actor=stage.actor)
            delivery.gives_up_at = utc_now() + timedelta(seconds=1)
            await session.commit()
        await stage.until(hook, "FAILED")
        async with stage.sessions() as session:
            await delivery_log.redeliver(session, hook, delivery.id, actor=stage.actor)
            await session.commit()
        await stage.until(hook, "DELIVERED")
        assert [asked.headers["webhook-id"] for asked in server.asked] == [str(delivery.id)] * 2
        assert json.loads(server.asked[0].body)["type"] == "webhook.test"


async def test_a_receiver_that_hangs_holds_up_no_other(stage: Stage) -> None:
    over = threading.Event()

    def hang(_: Asked) -> Answer:
        over.wait(20)
        return Answer(200)

    with serving(hang) as slow, serving(ok) as quick:
        try:
            hung, hook = await stage.hook(slow.url()), await stage.hook(quick.url())
            for _ in range(8):
                await stage.event()
            await stage.until(hook, *["DELIVERED"] * 8)
            assert await stage.state(hung) == ["WAITING"] * 8
            eventually(lambda: len(slow.asked) == 4)  # its own room, and no more
        finally:
            over.set()
        await stage.until(hung, *["DELIVERED"] * 8)


async def test_an_event_that_is_committed_after_a_later_one_is_not_missed(stage: Stage) -> None:
    task_id = await add_task(stage.sessions, stage.owner, "ECHO", lane="default")
    with serving(ok) as server:
        hook = await stage.hook(server.url())
        async with await psycopg.AsyncConnection.connect(stage.url) as early:
            await early.execute(EVENT, [task_id, stage.owner, "task.completed", None])
            later = [await stage.event() for _ in range(3)]
            await eventually_async(lambda: is_waited_for(stage))
            await early.commit()
        await stage.until(hook, *["DELIVERED"] * 4)
        assert Counter(received(server)) == Counter(map(str, [task_id, *later]))


async def is_waited_for(stage: Stage) -> bool:
    """Whether the cursor has stopped before the last event."""
    async with stage.sessions() as session:
        seen = await deliveries.horizon(session)
        statement = text("SELECT value::bigint < :upto FROM platform_state WHERE key = 'webhooks_cursor'")
        return bool((await session.execute(statement, {"upto": seen.upto})).scalar_one() and seen.writers)


async def test_a_long_transaction_that_writes_no_event_holds_up_nothing(stage: Stage) -> None:
    with serving(ok) as server:
        hook = await stage.hook(server.url())
        async with await psycopg.AsyncConnection.connect(stage.url) as idle:
            await idle.execute("INSERT INTO queues (name) VALUES ('idle')")
            await stage.event()
            await stage.until(hook, "DELIVERED")
            await idle.rollback()


async def test_an_address_that_is_not_public_is_not_called(stage: Stage) -> None:
    with serving(ok) as server:
        hook = await stage.hook(server.url())
        await stage.sql("UPDATE webhook_endpoints SET url = 'http://127.0.0.2:1/' WHERE id = :id", id=hook)
        await stage.event()
        await eventually_async(lambda: answered(stage, hook, None))
        (delivery,) = await stage.deliveries(hook)
        assert "not public" in (delivery.response or {})["error"]
        assert server.asked == []


async def test_for_a_day_the_secret_of_before_signs_too(stage: Stage) -> None:
    sealer = sealer_of(stage.settings)
    assert sealer is not None
    with serving(ok) as server:
        hook = await stage.hook(server.url())
        async with stage.sessions() as session:
            _, new = await webhooks.rotate_secret(session, hook, actor=stage.actor, sealer=sealer)
            await session.commit()
        await stage.event()
        await stage.until(hook, "DELIVERED")
        for secret in (new, stage.secrets[hook]):
            verify(server.asked[0].body, server.asked[0].headers, secret=secret, now=utc_now().timestamp())
        await stage.sql("UPDATE webhook_endpoints SET previous_secret_expires_at = now() WHERE id = :id", id=hook)
        await stage.event()
        await stage.until(hook, "DELIVERED", "DELIVERED")
        assert len(server.asked[1].headers["webhook-signature"].split(" ")) == 1
        verify(server.asked[1].body, server.asked[1].headers, secret=new, now=utc_now().timestamp())


async def test_an_answer_is_kept_up_to_a_bound_whatever_it_is(stage: Stage) -> None:
    over = threading.Event()

    def endless() -> Any:
        while not over.is_set():
            yield b"\0\xff" * 4096

    with serving(lambda _: Answer(200, endless(), {"Content-Encoding": "br"})) as server:
        try:
            hook = await stage.hook(server.url())
            await stage.event()
            (delivery,) = await stage.until(hook, "DELIVERED")
        finally:
            over.set()
    assert (delivery.response or {})["body"] == "\ufffd" * 1000


async def test_an_endpoint_that_too_much_waits_for_is_disabled(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliveries, "MAX_WAITING", 3)
    with serving(lambda _: Answer(503)) as server:
        hook = await stage.hook(server.url())
        for _ in range(4):
            await stage.event()

        async def is_disabled() -> bool:
            return (await stage.endpoint(hook)).disabled_reason == "more than 3 deliveries were waiting"

        await eventually_async(is_disabled)
        await stage.until(hook, *["FAILED"] * 4)


async def test_a_disabled_account_is_told_nothing_more(stage: Stage) -> None:
    with serving(ok) as server, serving(ok) as other:
        hook = await stage.hook(server.url())
        await stage.sql("UPDATE users SET disabled_at = now() WHERE id = :id", id=stage.owner)
        await stage.event()
        somebody = Stage(stage.settings, stage.sessions, await add_user(stage.sessions))
        theirs = await somebody.hook(other.url())
        await somebody.event()
        await somebody.until(theirs, "DELIVERED")
        assert await stage.deliveries(hook) == []
