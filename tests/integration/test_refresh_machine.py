"""Refresh families against a model: whatever is logged in, refreshed, replayed, ended or left lying in any order."""

import asyncio
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID, uuid4

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import text

import machines
from taskflow_core import refresh, users
from taskflow_core.actors import Actor
from taskflow_core.database import Sessions, create_engine, create_sessions
from taskflow_core.errors import NotFound
from taskflow_core.keyring import Keyring
from taskflow_core.models.users import Role
from taskflow_core.refresh import Lifetimes
from taskflow_core.security_events import NOWHERE
from taskflow_core.settings import Settings

KEYRING = Keyring([b"s" * 64])
DAY = 86_400
LIFETIMES = Lifetimes(idle_s=7 * DAY, absolute_s=30 * DAY)
# Minutes lie between any sum of steps and a bound, so that a slow machine does not fall to its other side.
GRACE = timedelta(hours=1)
STEPS = st.sampled_from([timedelta(minutes=10), timedelta(hours=2), timedelta(days=5), timedelta(days=8)])
AGE = """
UPDATE refresh_tokens SET created_at = created_at - :by, expires_at = expires_at - :by,
  family_expires_at = family_expires_at - :by, used_at = used_at - :by, revoked_at = revoked_at - :by
"""

T = TypeVar("T")


@dataclass
class Family:
    """What the model knows of a session."""

    id: UUID
    started: timedelta
    revoked: bool = False
    tokens: list["Token"] = field(default_factory=list)


@dataclass
class Token:
    """A token, when it was given and used, and its child once it was used."""

    text: str
    family: Family
    given: timedelta
    used: timedelta | None = None
    child: "Token | None" = None


class Refreshing(RuleBasedStateMachine):
    """One user, their sessions, and a clock that jumps: the rows grow older instead."""

    sessions: Sessions
    loop: asyncio.AbstractEventLoop
    tokens: Bundle[Token] = Bundle("tokens")

    @initialize()
    def register(self) -> None:
        self.now = timedelta()
        self.families: list[Family] = []
        self.disabled = False
        self.reused = 0
        self.user_id = self.run(self._register())

    @rule(target=tokens)
    def log_in(self) -> Token:
        started = self.run(self._do(refresh.start, self.user_id, lifetimes=LIFETIMES, origin=NOWHERE))
        family = Family(started.session_id, self.now)
        self.families.append(family)
        return self._given(started.token, family)

    @rule(target=tokens, token=tokens)
    def trade_in(self, token: Token) -> Token:
        renewal = self._rotate(token)
        if self._is_usable(token):
            if self.disabled:
                assert renewal is None
                token.family.revoked = True
                return token
            token.used = self.now
            assert renewal is not None
            assert (renewal.user.id, renewal.session_id) == (self.user_id, token.family.id)
            token.child = self._given(renewal.token, token.family)
            return token.child
        if token.used is None:
            assert renewal is None, "expired or revoked: refused, and nothing more"
            return token
        child = token.child
        assert child is not None
        if self.now - token.used < GRACE and self._is_usable(child) and not self.disabled:
            assert renewal is not None
            assert renewal.token == child.text, "the answer that got lost"
        else:
            assert renewal is None
            self.reused += not token.family.revoked
            token.family.revoked = True
        return child

    @rule(token=tokens, others=st.integers(2, 4))
    def trade_in_many_times_at_once(self, token: Token, others: int) -> None:
        if not self._is_usable(token) or self.disabled:
            return

        async def all_at_once() -> list[refresh.Renewal | None]:
            return await asyncio.gather(*(self._rotating(token) for _ in range(others)))

        children = {renewal.token for renewal in self.run(all_at_once()) if renewal}
        assert len(children) == 1, "one child, that all were given"
        token.used = self.now
        token.child = self._given(children.pop(), token.family)

    @rule(token=tokens)
    def log_out(self, token: Token) -> None:
        self.run(self._do(refresh.revoke, token.text, origin=NOWHERE))
        token.family.revoked = True

    @rule(token=tokens)
    def end_session(self, token: Token) -> None:
        family = token.family
        lives = not family.revoked and self.now - family.started < timedelta(seconds=LIFETIMES.absolute_s)
        ending = self._do(refresh.revoke_session, family.id, actor=Actor(self.user_id, Role.USER), origin=NOWHERE)
        if lives:
            self.run(ending)
            family.revoked = True
        else:
            with pytest.raises(NotFound):
                self.run(ending)

    @rule()
    def log_out_everywhere(self) -> None:
        self.run(self._do(refresh.revoke_all, self.user_id))
        for family in self.families:
            family.revoked = True

    @rule(disabled=st.booleans())
    def disable_or_enable(self, disabled: bool) -> None:
        at = "now()" if disabled else "NULL"
        self.run(self._sql(f"UPDATE users SET disabled_at = {at} WHERE id = :id", id=self.user_id))  # noqa: S608 - ours
        self.disabled = disabled

    @rule(by=STEPS)
    def time_passes(self, by: timedelta) -> None:
        self.now += by
        self.run(self._sql(AGE + "WHERE user_id = :id", by=by, id=self.user_id))

    @invariant()
    def the_sessions_listed_are_those_with_a_usable_token(self) -> None:
        listed = self.run(self._do(refresh.list_sessions, actor=Actor(self.user_id, Role.USER)))
        usable = {family.id for family in self.families if any(map(self._is_usable, family.tokens))}
        assert {state.id for state in listed} == usable
        assert len(listed) == len(usable), "a session has one living token"

    @invariant()
    def every_reuse_that_ended_a_session_is_on_record(self) -> None:
        query = "SELECT count(*) FROM security_events WHERE user_id = :id AND kind = 'refresh.reused'"
        assert self.run(self._sql(query, id=self.user_id)) == self.reused

    def run(self, work: Awaitable[T]) -> T:
        return self.loop.run_until_complete(_awaited(work))

    def _rotate(self, token: Token) -> refresh.Renewal | None:
        return self.run(self._rotating(token))

    def _rotating(self, token: Token) -> Awaitable[refresh.Renewal | None]:
        return self._do(refresh.rotate, token.text, keyring=KEYRING, lifetimes=LIFETIMES, origin=NOWHERE)

    def _given(self, text: str, family: Family) -> Token:
        token = Token(text, family, self.now)
        family.tokens.append(token)
        return token

    def _is_usable(self, token: Token) -> bool:
        family = token.family
        idle, age = self.now - token.given, self.now - family.started
        young = idle < timedelta(seconds=LIFETIMES.idle_s) and age < timedelta(seconds=LIFETIMES.absolute_s)
        return token.used is None and not family.revoked and young

    async def _register(self) -> UUID:
        async with self.sessions() as session:
            made = await users.register(session, email=f"{uuid4()}@example.com", password_hash="x")
            await session.commit()
            return made.id

    async def _do(self, use_case: Any, *args: Any, **kwargs: Any) -> Any:
        async with self.sessions() as session:
            result = await use_case(session, *args, **kwargs)
            await session.commit()
            return result

    async def _sql(self, statement: str, **parameters: Any) -> Any:
        async with self.sessions() as session:
            result = await session.execute(text(statement), parameters)
            await session.commit()
            return result.scalar() if result.returns_rows else None  # type: ignore[attr-defined] # a cursor's result


async def _awaited(work: Awaitable[T]) -> T:
    return await work


@pytest.fixture
def machine(module_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Refreshing]]:
    """Return the machine on a loop and a database of its own."""
    monkeypatch.setattr(refresh, "GRACE", GRACE)
    loop = asyncio.new_event_loop()
    engine = create_engine(module_settings, service="tests")
    yield type("Machine", (Refreshing,), {"sessions": create_sessions(engine), "loop": loop})
    loop.run_until_complete(engine.dispose())
    loop.close()


def test_families_behave_like_their_model_in_any_order_of_events(machine: type[Refreshing]) -> None:
    machines.run(machine, steps=25)
