"""The load: clients that create, cancel and retry tasks over the REST API the whole time, and note what was promised.

Only the types of the box are used, so that no type made for tests is installed with the platform. SYNC has effects
that count themselves, EMAIL one outside of the database, and all of them fail in ways that a user can choose.
"""

import asyncio
import random
import secrets
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID

import httpx2

from taskflow_cli.chaos.source import Source
from taskflow_cli.failures import Failure

TIMEOUT = httpx2.Timeout(10.0, connect=2.0)
PAUSE_S = (0.05, 0.35)
BACK_OFF_S = 0.5
MOST_OPEN = 400  # unfinished tasks at once: what is accepted must also end in time
REMEMBERED = 50
REPEATS = 20  # of a request under a key, half a second apart
MAX_ATTEMPTS = 5


class Variant(NamedTuple):
    """A way to make a task: what is asked for, how often, and how it may fail by itself."""

    weight: int
    type: str
    source: str = ""
    fields: Mapping[str, Any] = {}
    failures: frozenset[str] = frozenset()


# A SYNC over the network may give up after its last attempt however well the source means.
VARIANTS: dict[str, Variant] = {
    "mail": Variant(30, "EMAIL"),
    "report": Variant(8, "REPORT"),
    "quick": Variant(25, "SYNC", "quick", failures=frozenset({"retry"})),
    "slow": Variant(12, "SYNC", "slow", failures=frozenset({"retry"})),
    "moody": Variant(10, "SYNC", "moody", failures=frozenset({"retry"})),
    "refused": Variant(5, "SYNC", "refused", failures=frozenset({"retry", "source_refused"})),
    "frail": Variant(5, "SYNC", "slow", {"max_attempts": 1}, frozenset({"retry"})),
    "late": Variant(5, "SYNC", "slow", {"max_attempts": 1, "timeout_s": 1}, frozenset({"retry", "timeout"})),
}


@dataclass(slots=True)
class Ledger:
    """What was promised to the clients: each task that was accepted, and which answers there were."""

    accepted: dict[UUID, str] = field(default_factory=dict)
    answers: Counter[str] = field(default_factory=Counter)
    unanswered: int = 0  # creations whose answer never came: the task may exist or not
    finished: int = 0  # as last seen


class Client:
    """One owner, who asks until `stop` is set."""

    def __init__(
        self, api_url: str, source: Source, ledger: Ledger, *, number: int, seed: int, stop: asyncio.Event
    ) -> None:
        self._http = httpx2.AsyncClient(base_url=f"{api_url}/api/v1", timeout=TIMEOUT, trust_env=False)
        self._source = source
        self._ledger = ledger
        self._chance = random.Random(f"{seed}-{number}")  # noqa: S311 - to be repeatable is its point
        self._account = {"email": f"chaos-{secrets.token_hex(6)}@example.com", "password": secrets.token_urlsafe(24)}
        self._stop = stop
        self._recent: deque[UUID] = deque(maxlen=REMEMBERED)

    async def register(self) -> None:
        """Make the account and log in, while nothing is broken yet.

        Raises:
            Failure: the API refused.
        """
        answer = await self._http.post("/auth/register", json=self._account)
        if answer.status_code != httpx2.codes.CREATED or not await self._log_in():
            raise Failure(f"the platform refused a new account: {answer.status_code} {answer.text[:200]}")

    async def run(self) -> None:
        """Work until stopped."""
        while not self._stop.is_set():
            if len(self._ledger.accepted) - self._ledger.finished < MOST_OPEN:
                await self._act()
            await self._pause(self._chance.uniform(*PAUSE_S))
        await self._http.aclose()

    async def _act(self) -> None:
        what = self._chance.random()
        if what < 0.82 or not self._recent:
            await self._create()
        else:
            verb = "cancel" if what < 0.94 else "retry"
            await self._post(verb, f"/tasks/{self._chance.choice(self._recent)}:{verb}")

    async def _create(self) -> None:
        names = list(VARIANTS)
        (name,) = self._chance.choices(names, [VARIANTS[name].weight for name in names])
        answer = await self._ask_for(self._body(VARIANTS[name]))
        if answer is not None and answer.status_code == httpx2.codes.CREATED:
            task_id = UUID(answer.json()["id"])
            self._ledger.accepted[task_id] = name
            self._recent.append(task_id)

    async def _ask_for(self, body: dict[str, Any]) -> httpx2.Response | None:
        """Ask for a task; half of the time under a key, again and again until the answer says for sure."""
        keyed = self._chance.random() < 0.5
        headers = {"Idempotency-Key": secrets.token_hex(16)} if keyed else {}
        for _ in range(REPEATS if keyed else 1):
            answer = await self._post("create", "/tasks", body, headers)
            if answer is not None and not answer.is_server_error and not _is_in_flight(answer):
                self._ledger.answers["create replayed"] += "Idempotent-Replayed" in answer.headers
                return answer
        self._ledger.unanswered += 1
        return None

    def _body(self, variant: Variant) -> dict[str, Any]:
        body: dict[str, Any] = {"type": variant.type, "title": secrets.token_hex(8), "max_attempts": MAX_ATTEMPTS}
        body |= {"payload": self._payload(variant), **variant.fields}
        if self._chance.random() < 0.2:
            body["delay_s"] = round(self._chance.uniform(0.1, 4.0), 1)
        if self._chance.random() < 0.2:
            body["priority"] = self._chance.choice([-1, 1])
        if self._chance.random() < 0.1:
            body["dedup_key"] = f"key-{self._chance.randrange(3)}"
        if self._chance.random() < 0.2:
            body["queue"] = self._chance.choice(["high", "low"])
        return body

    def _payload(self, variant: Variant) -> dict[str, Any]:
        match variant.type:
            case "EMAIL":
                return {"to": ["chaos@example.com"], "subject": "Chaos", "text": "Once, whatever fails on the way."}
            case "REPORT":
                return {"last": "1h", "format": ["csv"]}
            case _:
                # A collection of its own for each task: what was created says how often the effect took place.
                pagination = {"kind": "next_field", "path": "next"}
                source = {"url": self._source.url(variant.source), "records_path": "items", "pagination": pagination}
                return {"source": source, "key": "id", "target": {"collection": f"chaos-{secrets.token_hex(8)}"}}

    async def _post(
        self, verb: str, path: str, body: dict[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> httpx2.Response | None:
        try:
            answer = await self._http.post(path, json=body, headers=headers)
        except httpx2.TransportError as error:
            self._ledger.answers[f"{verb} {type(error).__name__}"] += 1
            await self._pause(BACK_OFF_S * self._chance.uniform(0.5, 1.0))
            return None
        self._ledger.answers[f"{verb} {answer.status_code}"] += 1
        if answer.status_code == httpx2.codes.UNAUTHORIZED:
            await self._log_in()
        elif answer.is_server_error or answer.status_code == httpx2.codes.TOO_MANY_REQUESTS or _is_in_flight(answer):
            await self._pause(BACK_OFF_S * self._chance.uniform(0.5, 1.0))
        return answer

    async def _log_in(self) -> bool:
        try:
            answer = await self._http.post("/auth/login", json=self._account)
        except httpx2.TransportError:
            return False
        if answer.is_success:
            self._http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        return answer.is_success

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return


def _is_in_flight(answer: httpx2.Response) -> bool:
    """Whether an earlier request under the same key is still being answered."""
    return answer.status_code == httpx2.codes.CONFLICT and answer.json().get("code") == "idempotency_conflict"
