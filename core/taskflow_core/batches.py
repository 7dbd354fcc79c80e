"""Calls that arrive together share one run: a bounded buffer in front of a few links.

The first call starts a run at once, so a single caller waits for nobody; those that arrive meanwhile form the next.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from taskflow_core.database import is_outage
from taskflow_core.errors import Unavailable
from taskflow_core.links import Link

RUNNERS = 2
# Beside a run that is under way another one begins when more than FEW wait, or one longer than SOON_S: the fuller the
# runs, the cheaper are their calls.
FEW = 32
SOON_S = 0.01
MOST = 200
ROOM = 5000
OVERLOADED = "too many requests wait for the database; try again soon"

OUTAGE_RETRY_S = 2

Q = TypeVar("Q")
A = TypeVar("A")


class Call(Generic[Q, A]):
    """A question and its answer to be; `asked_at` by the loop's clock; `in_hand` once its answer is certain."""

    __slots__ = ("answer", "asked_at", "in_hand", "question")

    def __init__(self, question: Q, answer: "asyncio.Future[A]", asked_at: float) -> None:
        self.question = question
        self.answer = answer
        self.asked_at = asked_at
        self.in_hand = False

    def succeed(self, answer: A) -> None:
        """Give the answer, if somebody still waits."""
        if not self.answer.done():
            self.answer.set_result(answer)

    def fail(self, error: Exception) -> None:
        """Give an error as the answer, if somebody still waits."""
        if not self.answer.done():
            self.answer.set_exception(error)


Run = Callable[[Link, Sequence[Call[Q, A]]], Awaitable[None]]


class Batches(Generic[Q, A]):
    """Answers calls in runs of at most MOST; `run` answers each of its calls, or leaves it to a later hand."""

    def __init__(self, run: Run[Q, A], links: Sequence[Link], *, timeout_s: float) -> None:
        self._run = run
        self._idle = list(links)
        self._links = len(links)
        self._timeout_s = timeout_s
        self._waiting: deque[Call[Q, A]] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._unanswered = 0

    async def ask(self, question: Q) -> A:
        """Return the answer. A caller that is cancelled before its run began leaves no trace.

        Raises:
            Unavailable: ROOM calls wait already, or the run did not begin within `timeout_s`.
        """
        if self._unanswered >= ROOM:
            raise Unavailable(OVERLOADED)
        loop = asyncio.get_running_loop()
        call: Call[Q, A] = Call(question, loop.create_future(), loop.time())
        self._unanswered += 1
        try:
            self.enter(call)
            return await call.answer
        finally:
            self._unanswered -= 1

    def enter(self, call: Call[Q, A]) -> None:
        """Let a call take part in the next run; one that a run could not answer yet may come again."""
        self._waiting.append(call)
        if self._idle and (len(self._idle) == self._links or self._is_due(call)):
            running = asyncio.create_task(self._work(self._idle.pop()))
            self._running.add(running)
            running.add_done_callback(self._running.discard)

    def _is_due(self, newest: Call[Q, A]) -> bool:
        """Whether another run pays beside those under way."""
        return len(self._waiting) > FEW or newest.asked_at - self._waiting[0].asked_at > SOON_S

    async def close(self) -> None:
        """Answer what waits and close the links; every run has a deadline."""
        while self._running:
            await asyncio.wait(self._running)
        for link in self._idle:
            await link.drop()

    async def _work(self, link: Link) -> None:
        try:
            while batch := self._take():
                await self._run_within(link, batch)
        finally:
            self._idle.append(link)

    async def _run_within(self, link: Link, batch: Sequence[Call[Q, A]]) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._run(link, batch)
        except Exception as error:  # noqa: BLE001 - it is the answer of those that have none
            await link.drop()
            for call in batch:
                if not call.in_hand:
                    call.fail(away() if is_outage(error) else error)

    def _take(self) -> list[Call[Q, A]]:
        """Return the next calls; what nobody waits for any more is left out."""
        now = asyncio.get_running_loop().time()
        batch: list[Call[Q, A]] = []
        while self._waiting and len(batch) < MOST:
            call = self._waiting.popleft()
            if call.asked_at + self._timeout_s < now:
                call.fail(Unavailable(OVERLOADED))
            if not call.answer.done():
                batch.append(call)
        return batch


def away() -> Unavailable:
    """Return the error of a call whose database is away."""
    return Unavailable("the database does not answer; try again soon", retry_after_s=OUTAGE_RETRY_S)
