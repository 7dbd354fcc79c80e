"""Idempotency keys against a model: whatever is sent, repeated, sent at once, refused or left lying in any order."""

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar
from uuid import uuid4

import pytest
import structlog
from httpx2 import Response
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import machines
from api_app import Api, api_settings, running_api
from taskflow_core.idempotency import KEPT
from taskflow_core.settings import Settings

KEYS = st.sampled_from(["one", "two"])
# No sum of steps comes near the day that a key lives, so that a slow machine does not fall to its other side.
STEPS = st.sampled_from([timedelta(hours=11), timedelta(hours=16)])
AGE = "UPDATE idempotency_keys SET expires_at = expires_at - :by WHERE owner_id = :owner"
LETTER: dict[str, Any] = {"type": "LETTER", "payload": {"to": ["ada"]}}

T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """A request that makes `makes` tasks."""

    path: str
    body: dict[str, Any]
    status: int
    makes: int


@dataclass
class Kept:
    """What was answered under a key, to which request, and when."""

    request: Request
    answer: Any
    at: timedelta


class Repeating(RuleBasedStateMachine):
    """One user, two keys, and a clock that jumps: the rows grow older instead."""

    loop: asyncio.AbstractEventLoop
    apis: tuple[Api, Api]

    @initialize()
    def register(self) -> None:
        self.now = timedelta()
        self.kept: dict[str, Kept] = {}
        self.person = self.run(self.apis[0].person(uuid4().hex))
        first = self.run(self.apis[0].task(self.person))
        self.tasks = 1
        self.requests = [
            Request("/tasks", LETTER, 201, 1),
            Request("/tasks", LETTER | {"priority": 1}, 201, 1),
            Request("/tasks:batch", {"items": [LETTER, LETTER]}, 200, 2),
            Request(f"/tasks/{first['id']}:clone", {}, 201, 1),
            Request(f"/tasks/{first['id']}:clone", {"title": "a copy"}, 201, 1),
        ]

    @rule(key=KEYS, number=st.integers(0, 4), process=st.integers(0, 1))
    def send(self, key: str, number: int, process: int) -> None:
        self._expect(key, self.requests[number], self.run(self._send(process, key, self.requests[number])))

    @rule(key=KEYS, number=st.integers(0, 4), clients=st.integers(2, 6))
    def send_many_times_at_once(self, key: str, number: int, clients: int) -> None:
        request = self.requests[number]

        async def all_at_once() -> list[Response]:
            return list(await asyncio.gather(*(self._send(client % 2, key, request) for client in range(clients))))

        answers = self.run(all_at_once())
        answered = [answer for answer in answers if answer.json().get("code") != "idempotency_conflict"]
        assert answered, "whoever came first is answered"
        answered.sort(key=lambda answer: "idempotent-replayed" in answer.headers)
        for answer in answered:
            self._expect(key, request, answer)

    @rule(key=KEYS)
    def send_what_is_refused(self, key: str) -> None:
        refused = self.run(self._send(0, key, Request("/tasks", {"type": "LETTER", "payload": {}}, 422, 0)))
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid")

    @rule(by=STEPS)
    def time_passes(self, by: timedelta) -> None:
        self.now += by
        self.run(self.apis[0].sql(AGE, by=by, owner=self.person.id))

    @invariant()
    def there_are_as_many_tasks_as_requests_that_were_not_repeated(self) -> None:
        query = "SELECT count(*) FROM tasks WHERE owner_id = :owner"
        assert self.run(self.apis[0].fetch(query, owner=self.person.id)) == [(self.tasks,)]

    def run(self, work: Awaitable[T]) -> T:
        return self.loop.run_until_complete(_awaited(work))

    def _expect(self, key: str, request: Request, answer: Response) -> None:
        kept = self.kept.get(key)
        if kept is None or self.now - kept.at >= KEPT:
            assert (answer.status_code, "idempotent-replayed" in answer.headers) == (request.status, False), answer.text
            self.kept[key] = Kept(request, answer.json(), self.now)
            self.tasks += request.makes
        elif kept.request == request:
            assert (answer.status_code, answer.headers.get("idempotent-replayed")) == (request.status, "true")
            assert answer.json() == kept.answer
        else:
            assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_mismatch")

    async def _send(self, process: int, key: str, request: Request) -> Response:
        headers = self.person.headers | {"Idempotency-Key": key}
        return await self.apis[process].client.post(f"/api/v1{request.path}", json=request.body, headers=headers)


async def _awaited(work: Awaitable[T]) -> T:
    return await work


@pytest.fixture
def machine(module_settings: Settings) -> Iterator[type[Repeating]]:
    """Return the machine on a loop of its own, over two processes' worth of API."""
    loop, stack = asyncio.new_event_loop(), AsyncExitStack()
    settings = api_settings(module_settings)
    apis = tuple(loop.run_until_complete(stack.enter_async_context(running_api(settings))) for _ in range(2))
    with structlog.testing.capture_logs():
        yield type("Machine", (Repeating,), {"apis": apis, "loop": loop})
    loop.run_until_complete(stack.aclose())
    loop.close()


def test_a_key_behaves_like_its_model_in_any_order_of_events(machine: type[Repeating]) -> None:
    machines.run(machine, steps=20)


async def test_fifty_clients_of_two_processes_with_one_key_make_one_task(module_settings: Settings) -> None:
    settings = api_settings(module_settings)
    async with running_api(settings) as one, running_api(settings) as other:
        ada = await one.person("fifty")
        headers = ada.headers | {"Idempotency-Key": "the-same"}

        async def post(api: Api) -> Response:
            return await api.client.post("/api/v1/tasks", json=LETTER, headers=headers)

        answers = await asyncio.gather(*(post(api) for _ in range(25) for api in (one, other)))
        made = [answer for answer in answers if answer.status_code == 201]
        refused = {answer.json()["code"] for answer in answers if answer not in made}
        assert refused <= {"idempotency_conflict"}
        assert len({answer.json()["id"] for answer in made}) == 1
        assert len([answer for answer in made if "idempotent-replayed" not in answer.headers]) == 1
        assert await one.fetch("SELECT count(*) FROM tasks WHERE owner_id = :owner", owner=ada.id) == [(1,)]
