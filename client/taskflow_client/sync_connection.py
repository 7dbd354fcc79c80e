"""Carries out calls with blocking IO, and turns functions that make calls into methods. Threads may share it."""

import time
from collections.abc import Callable, Iterator
from typing import Any, Generic, ParamSpec, TypeVar

import httpx2

from taskflow_client import http, waiting
from taskflow_client.call import Call, Reply
from taskflow_client.calls import access
from taskflow_client.errors import Problem, Unavailable, Unreachable
from taskflow_client.exchange import Pause, Policy, Renew, Send, Step, exchange
from taskflow_client.models import Items, Page, TokenPair
from taskflow_client.stream import Frame, Reader
from taskflow_client.tokens import MemoryStore, Tokens, TokenStore

P = ParamSpec("P")
T = TypeVar("T")


class Connection:
    """Carries out calls at one address, as one user.

    `token` (an access token or an API key) is sent as it is; without one, the login of `store` is used and renewed.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        store: TokenStore | None = None,
        policy: Policy = Policy(),  # noqa: B008 - frozen
        user_agent: str = "",
        trust_env: bool = True,
    ) -> None:
        self.url = url.rstrip("/")
        self.store: TokenStore = store or MemoryStore()
        self._token = token
        self._policy = policy
        self._http = httpx2.Client(**http.settings(url, user_agent=user_agent, trust_env=trust_env))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def call(self, call: Call[T]) -> T:
        """Carry out a call.

        Raises:
            Problem: the API refused it.
            Unreachable, UnexpectedAnswer: there was no answer, or not TaskFlow's.
        """
        return call.result(self.url, self._carry_out(call))

    def act_as(self, pair: TokenPair) -> None:
        """Keep the tokens of a login, and use them from now on."""
        self._token = None
        with self.store.lock():
            self.store.save(Tokens(pair.access_token, pair.refresh_token))

    def pieces(self, call: Call[Any]) -> Iterator[bytes]:
        """Carry out a call and yield its answer in pieces, as they arrive."""
        reply = self._carry_out(call, stream=True)
        call.result(self.url, reply)
        try:
            yield from reply.raw.iter_bytes(http.PIECE)
        except httpx2.TransportError as error:
            raise Unreachable(self.url, http.lost(error).reason) from error
        finally:
            reply.raw.close()

    def follow(self, call: Call[Any], *, after: str = "", timeout_s: float | None = None) -> Iterator[Frame]:
        """Yield the events of a stream until the server says that it is finished; a cut one is opened again.

        Raises:
            DeadlinePassed: `timeout_s` seconds went by first.
            Problem, Unreachable, UnexpectedAnswer: it cannot be opened, or not any more.
        """
        reader, deadline = Reader(after=after), waiting.Deadline(timeout_s)
        while True:
            try:
                for piece in self._opened(call, reader, deadline):
                    yield from reader.feed(piece)
                    deadline.check()
                    if reader.finished:
                        break
            except (Unreachable, Unavailable):
                if not reader.started:
                    raise
            if reader.finished:
                return
            time.sleep(deadline.limit(reader.pause_s(self.url)))
            deadline.check()

    def _opened(self, call: Call[Any], reader: Reader, deadline: waiting.Deadline) -> Iterator[bytes]:
        opening = http.streaming(call, reader, left_s=deadline.left_s)
        reply = self._carry_out(opening, stream=True)
        opening.result(self.url, reply)
        reader.connected(reply.status)
        try:
            if reply.status != httpx2.codes.NO_CONTENT:
                http.check_stream(reply, self.url)
                yield from reply.raw.iter_bytes()
        except httpx2.TransportError as error:
            raise Unreachable(self.url, http.lost(error).reason) from error
        finally:
            reply.raw.close()

    def _carry_out(self, call: Call[Any], *, stream: bool = False) -> Reply:
        steps = exchange(call, url=self.url, policy=self._policy, token=self._bearer, clock=time.monotonic)
        outcome: Any = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as done:
                reply: Reply = done.value
                return reply
            outcome = self._do(step, stream=stream)

    def _do(self, step: Step, *, stream: bool) -> Any:
        match step:
            case Send():
                return self._send(step, stream=stream)
            case Pause(seconds):
                time.sleep(seconds)
                return None
            case Renew(token):
                return self._renew(token)

    def _send(self, send: Send, *, stream: bool) -> Any:
        request = self._http.build_request(send.method, send.path, **http.parts(send, self._policy))
        try:
            response = self._http.send(request, stream=True)
            if stream and response.is_success:
                return Reply(response.status_code, response.headers, raw=response)
            try:
                return Reply(response.status_code, response.headers, response.read())
            finally:
                response.close()
        except httpx2.TransportError as error:
            return http.lost(error)

    def _bearer(self) -> str | None:
        if self._token is not None:
            return self._token
        tokens = self.store.load()
        return tokens.access if tokens else None

    def _renew(self, stale: str | None) -> bool:
        """Get another access token; calls that need one at the same time share one renewal."""
        if self._token is not None:
            return False
        with self.store.lock():
            tokens = self.store.load()
            if tokens is None or tokens.access != stale:
                return tokens is not None
            try:
                pair = self.call(access.refresh_tokens(tokens.refresh))
            except Problem as problem:
                if problem.status != httpx2.codes.UNAUTHORIZED:
                    raise
                self.store.save(None)
                return False
            self.store.save(Tokens(pair.access_token, pair.refresh_token))
        return True


class Group:
    """Operations on one kind of resource."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def carry_out(self, call: Call[T]) -> T:
        """Carry out a call."""
        return self._connection.call(call)

    def carry_out_paged(self, call: Call[Page[T]]) -> Iterator[T]:
        """Yield the items of a list, page after page."""
        while True:
            page = self._connection.call(call)
            yield from page.items
            if page.next_cursor is None:
                return
            call = call.after(page.next_cursor)


class Does(Generic[P, T]):
    """A method that carries out a call and returns its result."""

    def __init__(self, build: Callable[P, Call[T]]) -> None:
        self.build = build
        self.__doc__ = build.__doc__

    def __get__(self, group: Group, owner: type) -> Callable[P, T]:
        return lambda *args, **kwargs: group.carry_out(self.build(*args, **kwargs))


class Lists(Generic[P, T]):
    """A method that yields the items of a list, page after page."""

    def __init__(self, build: Callable[P, Call[Page[T]]]) -> None:
        self.build = build
        self.__doc__ = build.__doc__

    def __get__(self, group: Group, owner: type) -> Callable[P, Iterator[T]]:
        return lambda *args, **kwargs: group.carry_out_paged(self.build(*args, **kwargs))


class All(Generic[P, T]):
    """A method that returns the items of a list that is answered whole."""

    def __init__(self, build: Callable[P, Call[Items[T]]]) -> None:
        self.build = build
        self.__doc__ = build.__doc__

    def __get__(self, group: Group, owner: type) -> Callable[P, list[T]]:
        return lambda *args, **kwargs: group.carry_out(self.build(*args, **kwargs)).items
