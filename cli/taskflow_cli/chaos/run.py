"""A chaos run from start to verdict: load and faults, then quiet until everything has ended, then the reckoning."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from taskflow_cli.chaos.faults import Injector
from taskflow_cli.chaos.load import Client, Ledger
from taskflow_cli.chaos.mails import Mails
from taskflow_cli.chaos.plan import plan
from taskflow_cli.chaos.platform import chaos_platform
from taskflow_cli.chaos.source import Source, serving
from taskflow_cli.chaos.verdict import Verdict, judge
from taskflow_cli.embedded.datadir import State
from taskflow_cli.embedded.platform import Platform
from taskflow_cli.failures import DeadlinePassed
from taskflow_core.audit import Audit, audit

WATCH_S = 1.0
QUIET_S = 180.0  # five attempts with their backoff take half a minute, and a queue stands before them
REACH_S = 30.0
EVER = datetime(2000, 1, 1, tzinfo=UTC)

COUNTS = "SELECT now(), count(*) FILTER (WHERE finished_at IS NOT NULL), count(*) FROM tasks WHERE created_at >= %s"


@dataclass(frozen=True, slots=True)
class Options:
    """What `taskflow chaos` is asked for."""

    seconds: float
    seed: int
    clients: int
    folder: Path


@dataclass(slots=True)
class Outcome:
    """What a run did and what was found after it."""

    options: Options
    faults: Counter[str] = field(default_factory=Counter)
    missed: int = 0  # faults that came when their part was down already
    interrupted: bool = False
    quiet_after_s: float = 0.0
    ledger: Ledger = field(default_factory=Ledger)
    verdict: Verdict = field(default_factory=Verdict)
    audit: Audit | None = None
    live_audits: int = 0
    broken_live: dict[str, list[str]] = field(default_factory=dict)  # by rule, while parts were being broken

    @property
    def clean(self) -> bool:
        """Whether every promise was kept. What an interrupted run left unfinished is no broken promise."""
        kept = not self.verdict.broken and not self.broken_live and (self.interrupted or not self.verdict.unfinished)
        return kept and self.audit is not None and self.audit.clean


class Run:
    """One run; `tell` is given a line for people now and then."""

    def __init__(self, options: Options, tell: Callable[[str], None]) -> None:
        self.outcome = Outcome(options)
        self._options = options
        self._tell = tell
        self._began = time.monotonic()
        self._interrupted = asyncio.Event()
        self._since = EVER
        self._database_url = ""

    async def run(self) -> Outcome:
        """Do it all.

        Raises:
            CannotStart: the platform does not start.
            DeadlinePassed: PostgreSQL was not back in time for the reckoning.
        """
        async with AsyncExitStack() as stack:
            source = stack.enter_context(serving(self._options.seed))
            platform = chaos_platform(self._options.folder)
            self._listen(platform)
            await stack.enter_async_context(platform)
            assert platform.state is not None  # noqa: S101 - the platform has started
            self._say(f"the platform is up in {self._options.folder}")
            await self._disturb(platform, platform.state, source)
        return self.outcome

    async def _disturb(self, platform: Platform, state: State, source: Source) -> None:
        self._database_url = state.database_url
        mails = Mails(Path(state.mail_dir))
        self._since = (await self._look(EVER))[0]
        stop = asyncio.Event()
        clients = [
            Client(state.api_url, source, self.outcome.ledger, number=number, seed=self._options.seed, stop=stop)
            for number in range(self._options.clients)
        ]
        await asyncio.gather(*(client.register() for client in clients))
        watching = asyncio.create_task(self._watch(mails))
        try:
            async with asyncio.TaskGroup() as load:
                for client in clients:
                    load.create_task(client.run())
                await self._break_things(Injector(platform, database_url=state.database_url, redis_url=state.redis_url))
                stop.set()
            await self._wait_for_quiet()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        mails.look()
        self.outcome.interrupted = self._interrupted.is_set()
        await asyncio.to_thread(self._reckon, mails)

    async def _break_things(self, injector: Injector) -> None:
        until = time.monotonic() + self._options.seconds
        try:
            for fault in plan(self._options.seed):
                if await self._interrupted_within(min(fault.gap_s, until - time.monotonic())):
                    return
                if time.monotonic() >= until:
                    return
                if await injector.apply(fault):
                    self.outcome.faults[f"{fault.target.partition('-')[0]} {fault.kind}"] += 1
                    self._say(str(fault))
                else:
                    self.outcome.missed += 1
                    self._say(f"{fault.target} is down already")
        finally:
            await injector.undo()

    async def _wait_for_quiet(self) -> None:
        began = time.monotonic()
        self._say("no more faults; waiting until every task has ended")
        while time.monotonic() - began < QUIET_S:
            try:
                _, finished, tasks = await self._look(self._since)
            except psycopg.OperationalError:
                finished, tasks = 0, 1
            if finished == tasks or await self._interrupted_within(WATCH_S / 2):
                break
        self.outcome.quiet_after_s = time.monotonic() - began

    async def _watch(self, mails: Mails) -> None:
        told = 0.0
        while True:
            await asyncio.to_thread(mails.look)
            try:
                self.outcome.ledger.finished = (await self._look(self._since))[1]
                if time.monotonic() - told > 5 * WATCH_S:
                    told = time.monotonic()
                    await asyncio.to_thread(self._audit_live)
            except psycopg.OperationalError:  # it is being broken right now
                self._say("PostgreSQL does not answer")
            await asyncio.sleep(WATCH_S)

    async def _look(self, since: datetime) -> tuple[datetime, int, int]:
        return await asyncio.to_thread(self._counts, since)

    def _counts(self, since: datetime) -> tuple[datetime, int, int]:
        with psycopg.connect(self._database_url, connect_timeout=2, application_name="chaos") as connection:
            ((now, finished, tasks),) = connection.execute(COUNTS, [since]).fetchall()
            return now, finished, tasks

    def _audit_live(self) -> None:
        """Audit in the middle of everything: what must hold, must hold at any moment."""
        with psycopg.connect(self._database_url, connect_timeout=2, application_name="chaos") as connection:
            found = audit(connection)
        self.outcome.live_audits += 1
        broken = [finding for finding in found.findings if finding.violations]
        for finding in broken:
            self.outcome.broken_live.setdefault(finding.name, [str(task_id) for task_id in finding.examples])
        self._say(f"audit: {', '.join(finding.name for finding in broken) or 'clean'}")

    def _reckon(self, mails: Mails) -> None:
        with self._connect() as connection:
            self.outcome.verdict = judge(connection, self.outcome.ledger, mails, since=self._since)
        with self._connect() as connection:
            self.outcome.audit = audit(connection)

    def _connect(self) -> psycopg.Connection:
        deadline = time.monotonic() + REACH_S
        while True:
            try:
                return psycopg.connect(self._database_url, connect_timeout=2, application_name="chaos")
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise DeadlinePassed(f"PostgreSQL did not come back within {REACH_S:.0f} s") from None
                time.sleep(WATCH_S / 2)

    def _listen(self, platform: Platform) -> None:
        def asked_to_stop() -> None:
            if self._interrupted.is_set():
                platform.hurry()
            self._interrupted.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, asked_to_stop)

    async def _interrupted_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._interrupted.wait(), max(0.0, seconds))
        except TimeoutError:
            return False
        return True

    def _say(self, text: str) -> None:
        ledger = self.outcome.ledger
        counts = f"accepted {len(ledger.accepted):>5}  ended {ledger.finished:>5}"
        self._tell(f"{time.monotonic() - self._began:6.1f} s  {counts}  {text}".rstrip())
