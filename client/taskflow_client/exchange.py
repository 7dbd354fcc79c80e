"""How a call is carried out, without doing any IO: what to send, when to wait, when to renew the token, when to stop.

`exchange` is a generator of steps. Whoever runs it does each step, sends in what came of it, and gets the reply at the
end: the same rules for threads and for an event loop.
"""

import random
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from taskflow_client.call import Call, Reply
from taskflow_client.errors import Unreachable

IN_FLIGHT = b'"idempotency_conflict"'


@dataclass(frozen=True, slots=True)
class Policy:
    """Bounds, in seconds. A Retry-After beyond `longest_pause_s` is not waited for: the refusal is the caller's."""

    timeout_s: float = 15.0
    connect_timeout_s: float = 5.0
    deadline_s: float = 60.0
    repeats: int = 3
    first_pause_s: float = 0.2
    longest_pause_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Send:
    """Send a request; answer with a Reply, or a Lost."""

    method: str
    path: str
    query: Mapping[str, Any]
    body: Any
    headers: Mapping[str, str]
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait; answer with None."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Renew:
    """Get another access token than this one; answer with whether there is one."""

    token: str | None


@dataclass(frozen=True, slots=True)
class Lost:
    """A request without an answer; when `nothing_sent` it cannot have done anything."""

    reason: str
    nothing_sent: bool


Step: TypeAlias = Send | Pause | Renew


def exchange(
    call: Call[Any],
    *,
    url: str,
    policy: Policy,
    token: Callable[[], str | None],
    clock: Callable[[], float],
) -> Generator[Step, Any, Reply]:
    """Yield the steps of a call and return its reply, a refusal too.

    Raises:
        Unreachable: there was no answer, and asking again could do harm, or did not help.
    """
    deadline = clock() + policy.deadline_s + (call.timeout_s or 0)
    renewed, pauses = False, _pauses(policy)
    while True:
        bearer = None if call.anonymous else token()
        outcome: Reply | Lost = yield _send(call, bearer, policy, left_s=deadline - clock())
        if isinstance(outcome, Reply) and outcome.status == 401 and not (renewed or call.anonymous):
            renewed = True
            if (yield Renew(bearer)):
                continue
        pause = next(pauses, None) if _may_help(call, outcome, policy) else None
        if pause is not None and isinstance(outcome, Reply):
            pause = max(pause, outcome.retry_after_s or 0)
        if pause is None or clock() + pause >= deadline:
            break
        yield Pause(pause)
    if isinstance(outcome, Lost):
        raise Unreachable(url, outcome.reason)
    return outcome


def _send(call: Call[Any], bearer: str | None, policy: Policy, *, left_s: float) -> Send:
    authorization = {"Authorization": f"Bearer {bearer}"} if bearer else {}
    timeout_s = call.timeout_s or min(policy.timeout_s, max(0.1, left_s))
    return Send(call.method, call.address, call.query, call.body, {**call.headers, **authorization}, timeout_s)


def _pauses(policy: Policy) -> Generator[float, None, None]:
    for repeat in range(policy.repeats):
        longest = min(policy.longest_pause_s, policy.first_pause_s * 2**repeat)
        yield longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret


def _may_help(call: Call[Any], outcome: Reply | Lost, policy: Policy) -> bool:
    """Whether the same request may soon be answered, and sending it again does no harm."""
    if isinstance(outcome, Lost):
        return call.is_harmless or outcome.nothing_sent
    if (outcome.retry_after_s or 0) > policy.longest_pause_s:
        return False
    match outcome.status:
        case 429:
            return True  # refused before anything was done
        case 409:
            return call.is_harmless and IN_FLIGHT in outcome.content
        case 502 | 503 | 504:
            return call.is_harmless
        case _:
            return False
