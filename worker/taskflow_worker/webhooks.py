"""The scheduler's part that sends webhooks, beside its jobs: neither waits for the other.

One loop makes deliveries out of events and takes those that are due; each of them is sent by a task of its own, so a
server that answers slowly holds up nothing but its own room. A crash between sending and noting it means that the
delivery is sent again, under the same webhook-id, when its lease has ended.
"""

import asyncio
import random
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError

from taskflow_core import deliveries, webhooks
from taskflow_core.addresses import AllowList
from taskflow_core.clock import utc_now
from taskflow_core.database import create_engine, create_sessions
from taskflow_core.deliveries import Bounds, Horizon, Sending
from taskflow_core.fetch import Client, Fetched, FetchFailed, FetchRefused, retry_after
from taskflow_core.links import pause
from taskflow_core.logs import get_logger
from taskflow_core.probes import Pulse
from taskflow_core.sealing import CannotUnseal, Sealer
from taskflow_core.settings import SchedulerSettings
from taskflow_core.signatures import sign
from taskflow_worker.metrics import WebhookMetrics

ATTEMPT_S = 15.0
KEPT_BYTES = 1000
POOL = 5  # one connection finds what is due, the others note what became of it
SETTLES_S = 1.0  # how long one round waits for the writers of events
POLL_S = 0.02
RESEAL_S = 3600.0
START = UUID(int=0)
GONE = 410

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """How one attempt ended: what is kept of it, and what it asks for."""

    response: dict[str, Any]
    status: int | None = None
    wait: timedelta | None = None

    @property
    def arrived(self) -> bool:
        """Whether the receiver has it."""
        return self.status is not None and 200 <= self.status < 300


class Webhooks:
    """Makes, takes and sends deliveries until stopped."""

    def __init__(self, settings: SchedulerSettings, sealer: Sealer, *, pulse: Pulse, metrics: WebhookMetrics) -> None:
        self._every_s = settings.sweep_interval_s
        self._disable_after = timedelta(seconds=settings.webhook_disable_after_s)
        self._bounds = Bounds(total=settings.webhook_concurrency)
        self._engine = create_engine(settings, service="webhooks", pool_size=POOL)
        self._sessions = create_sessions(self._engine)
        self._sealer = sealer
        self._pulse = pulse
        self._metrics = metrics
        self._client = Client(
            AllowList.parse(settings.fetch_allow_hosts),
            max_bytes=KEPT_BYTES,
            total_s=ATTEMPT_S,
            connections=settings.webhook_concurrency,
            beginning_only=True,
        )
        self._horizon: Horizon | None = None
        self._sending: dict[asyncio.Task[None], Sending] = {}
        self._reseal_at = 0.0

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until told to stop; what is being sent then is given its time."""
        failures = 0
        async with self._client:
            while not stopping.is_set():
                self._pulse.beat("webhooks")
                try:
                    more = await self._round()
                    failures = 0
                except Exception as error:  # noqa: BLE001 - whatever is wrong here stops no task of the platform
                    failures += 1
                    self._complain("webhooks.failed", error)
                    await pause(failures, cap_s=30.0, stop=stopping)
                    continue
                if not more:
                    await self._rest(stopping)
            if self._sending:
                await asyncio.wait(self._sending, timeout=ATTEMPT_S)
            for task in self._sending:
                task.cancel()
            await asyncio.gather(*self._sending, return_exceptions=True)
        await self._engine.dispose()

    async def _round(self) -> bool:
        """Do what is to be done now; returns whether there is more."""
        await self._reseal()
        more = await self._fan_out()
        return await self._take() or more

    async def _fan_out(self) -> bool:
        if self._horizon is None:
            async with self._sessions() as session:
                self._horizon = await deliveries.horizon(session)
        if not await self._settles(self._horizon):
            return False
        async with self._sessions() as session:
            made = await deliveries.fan_out(session, upto=self._horizon.upto)
            await session.commit()
        if not made.more:
            self._horizon = None
        for identifier in made.overflowed:
            self._metrics.disabled("overflow")
            log.warning("webhook.disabled", webhook_id=str(identifier), reason="too many deliveries wait")
        return made.more

    async def _settles(self, seen: Horizon) -> bool:
        """Wait a moment for transactions that may still write an event; the next round waits on."""
        deadline = time.monotonic() + SETTLES_S
        while True:
            async with self._sessions() as session:
                if await deliveries.has_settled(session, seen):
                    return True
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(POLL_S)

    async def _take(self) -> bool:
        if len(self._sending) >= self._bounds.total:
            return False
        async with self._sessions() as session:
            taken = await deliveries.take(session, bounds=self._bounds, busy=list(self._sending.values()))
            await session.commit()
        for one in taken:
            task = asyncio.create_task(self._send(one))
            self._sending[task] = one
            task.add_done_callback(self._sending.pop)
        return bool(taken) and len(self._sending) < self._bounds.total

    async def _rest(self, stopping: asyncio.Event) -> None:
        """Wait for the next round: for the interval, or until something was sent and makes room."""
        told = asyncio.ensure_future(stopping.wait())
        try:
            await asyncio.wait({told, *self._sending}, timeout=self._every_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            told.cancel()

    async def _send(self, one: Sending) -> None:
        answer = await self._attempt(one)
        try:
            await self._note(one, answer)
        except Exception as error:  # noqa: BLE001 - its lease ends, and it is sent again
            self._complain("webhook.lost", error, delivery_id=str(one.id))

    async def _attempt(self, one: Sending) -> Answer:
        began = time.monotonic()
        try:
            headers = {"Content-Type": "application/json", "Accept-Encoding": "identity", **self._signed(one)}
            fetched = await self._client.request("POST", one.url, headers=headers, content=one.body.encode())
            answer = _answer(fetched, latency_s=time.monotonic() - began)
        except (CannotUnseal, FetchRefused, FetchFailed) as error:
            answer = Answer(_response(str(error), time.monotonic() - began))
        except Exception as error:  # a failed attempt like any other, so that it ends some day
            log.error("webhook.failed", error=type(error).__name__, exc_info=error, delivery_id=str(one.id))
            answer = Answer(_response("something went wrong on our side", time.monotonic() - began))
        self._metrics.sent(arrived=answer.arrived, seconds=time.monotonic() - began)
        return answer

    def _signed(self, one: Sending) -> dict[str, str]:
        sealed = [one.secret] + ([] if one.previous_secret is None else [one.previous_secret])
        secrets = [self._sealer.unseal(secret, row=one.endpoint_id).decode() for secret in sealed]
        return sign(one.body.encode(), message_id=str(one.id), timestamp=int(utc_now().timestamp()), secrets=secrets)

    async def _note(self, one: Sending, answer: Answer) -> None:
        async with self._sessions() as session:
            disabled = None
            if answer.arrived:
                await deliveries.succeeded(session, one, response=answer.response)
            else:
                wait_s = deliveries.backoff_s(one.tried_s, spread=random.random())  # noqa: S311 - jitter is no secret
                if answer.wait is not None:
                    wait_s = max(wait_s, answer.wait.total_seconds())
                disabled = await deliveries.failed(
                    session, one, response=answer.response, wait_s=wait_s, disable_after=self._disable_after
                )
            if answer.status == GONE:
                disabled = "it answered 410 Gone"
                await webhooks.give_up(session, one.endpoint_id, reason=disabled)
            await session.commit()
        fields = {"delivery_id": str(one.id), "webhook_id": str(one.endpoint_id), "attempt": one.attempt}
        log.info("webhook.sent", status=answer.status, arrived=answer.arrived, **fields)
        if disabled:
            self._metrics.disabled("gone" if answer.status == GONE else "failing")
            log.warning("webhook.disabled", webhook_id=str(one.endpoint_id), reason=disabled)

    async def _reseal(self) -> None:
        """Now and then, encrypt anew what an older key holds, so that the operator can drop that key."""
        if time.monotonic() < self._reseal_at:
            return
        self._reseal_at = time.monotonic() + RESEAL_S
        after, count = START, 0
        try:
            while True:
                async with self._sessions() as session:
                    done = await deliveries.reseal(session, self._sealer, after=after)
                    await session.commit()
                if not done:
                    break
                after, count = done[-1], count + len(done)
        except CannotUnseal as error:
            log.error("webhooks.key_missing", reason=str(error))
        if count:
            log.info("webhooks.resealed", webhooks=count)

    def _complain(self, event: str, error: Exception, **fields: Any) -> None:
        if isinstance(error, SQLAlchemyError | OSError):
            log.warning(event, reason=str(error).partition("\n")[0], **fields)
        else:
            log.error(event, error=type(error).__name__, exc_info=error, **fields)


def _answer(fetched: Fetched, *, latency_s: float) -> Answer:
    beginning = fetched.body.decode("utf-8", "replace").replace("\0", "\ufffd")
    response = {"status": fetched.status, "latency_ms": round(latency_s * 1000), "body": beginning, "error": None}
    wait = retry_after(fetched.headers.get("retry-after"), now=utc_now()) if fetched.status in {429, 503} else None
    return Answer(response, fetched.status, wait)


def _response(error: str, latency_s: float) -> dict[str, Any]:
    return {"status": None, "latency_ms": round(latency_s * 1000), "body": None, "error": error}
