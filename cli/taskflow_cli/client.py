"""A client of the REST API: bounded waits, retries where they are safe, tokens renewed when they expire."""

import random
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar
from urllib.parse import quote
from uuid import uuid4

import httpx2
from pydantic import ValidationError

from taskflow_cli.credentials import Credentials, Login
from taskflow_cli.failures import Failure, Refused, Unreachable
from taskflow_cli.location import Location
from taskflow_cli.wire import (
    BulkRetry,
    Queue,
    Queues,
    Schedule,
    SchedulePage,
    Task,
    TaskFile,
    TaskFiles,
    TaskPage,
    Tokens,
    User,
    Wire,
)

BASE = "/api/v1"
TIMEOUT = httpx2.Timeout(15.0, connect=5.0)
BACKOFF_S = (0.2, 0.4, 0.8)
RETRY_AFTER_CAP_S = 5.0
KEY_HEADER = "Idempotency-Key"
NOTHING_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout)

W = TypeVar("W", bound=Wire)


class Client:
    """The API at one address, as one user. Raises Refused for problems and Unreachable when nothing answers.

    `token` is sent as it is; with `credentials` the stored login is used and renewed by its refresh token.
    """

    def __init__(self, location: Location, *, token: str | None = None, credentials: Credentials | None = None) -> None:
        self.location = location
        self._token = token
        self._credentials = credentials
        if credentials is not None and (login := credentials.get(location.url)):
            self._token = login.access_token
        self._http = httpx2.Client(
            base_url=location.url,
            timeout=TIMEOUT,
            headers={"User-Agent": f"taskflow-cli/{version('taskflow-platform')}", "Accept": "application/json"},
            trust_env=not location.is_loopback,  # a proxy of the environment cannot reach this machine
        )

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.close()

    def register(self, email: str, password: str) -> User:
        """Create an account."""
        return self._parse(User, self._anonymous("/auth/register", {"email": email, "password": password}))

    def login(self, email: str, password: str) -> Tokens:
        """Prove who the user is, and act as that user from now on."""
        tokens = self._parse(Tokens, self._anonymous("/auth/login", {"email": email, "password": password}))
        self._token = tokens.access_token
        return tokens

    def logout(self, refresh_token: str) -> None:
        """End the login that the refresh token belongs to."""
        self._anonymous("/auth/logout", {"refresh_token": refresh_token})

    def me(self) -> User:
        """Return the user whose token this is."""
        return self._parse(User, self._send("GET", "/auth/me"))

    def submit(self, new: dict[str, Any]) -> Task:
        """Create a task from the body of `POST /tasks`, once, however often the request has to be sent."""
        return self._parse(Task, self._send("POST", "/tasks", json=new, headers={KEY_HEADER: str(uuid4())}))

    def task(self, task_id: str) -> Task:
        """Return a task."""
        return self._parse(Task, self._send("GET", f"/tasks/{task_id}"))

    def tasks(self, *, limit: int, filters: Mapping[str, str | None], cursor: str | None = None) -> TaskPage:
        """Return a page of tasks, newest first; `filters` are those of `GET /tasks`."""
        wanted = {"limit": str(limit), "cursor": cursor, **filters}
        params = {name: value for name, value in wanted.items() if value is not None}
        return self._parse(TaskPage, self._send("GET", "/tasks", params=params))

    def count_tasks(self, filters: Mapping[str, str]) -> int:
        """Return how many tasks a filter matches, counted up to 10,000."""
        params = {**filters, "page": "1", "limit": "1"}
        return self._parse(TaskPage, self._send("GET", "/tasks", params=params)).total or 0

    def bulk_retry(self, filters: Mapping[str, str], *, expected_count: int) -> BulkRetry:
        """Give every FAILED task of a filter a fresh set of attempts."""
        body = {"filter": dict(filters), "expected_count": expected_count}
        return self._parse(BulkRetry, self._send("POST", "/tasks:bulkRetry", json=body))

    def cancel(self, task_id: str) -> Task:
        """Ask a task to stop."""
        return self._parse(Task, self._send("POST", f"/tasks/{task_id}:cancel"))

    def retry(self, task_id: str) -> Task:
        """Give a failed task a fresh set of attempts."""
        return self._parse(Task, self._send("POST", f"/tasks/{task_id}:retry"))

    def schedules(self, *, limit: int, cursor: str | None = None) -> SchedulePage:
        """Return a page of schedules, newest first."""
        params = {"limit": str(limit), **({"cursor": cursor} if cursor else {})}
        return self._parse(SchedulePage, self._send("GET", "/schedules", params=params))

    def add_schedule(self, new: dict[str, Any]) -> Schedule:
        """Make a schedule from the body of `POST /schedules`."""
        return self._parse(Schedule, self._send("POST", "/schedules", json=new))

    def change_schedule(self, schedule_id: str, verb: Literal["pause", "resume"]) -> Schedule:
        """Pause or resume a schedule."""
        return self._parse(Schedule, self._send("POST", f"/schedules/{schedule_id}:{verb}"))

    def remove_schedule(self, schedule_id: str) -> None:
        """Delete a schedule."""
        self._send("DELETE", f"/schedules/{schedule_id}")

    def queues(self) -> list[Queue]:
        """Return the queues, by name."""
        return self._parse(Queues, self._send("GET", "/queues")).items

    def change_queue(self, name: str, verb: Literal["pause", "resume"]) -> Queue:
        """Pause or resume a queue."""
        return self._parse(Queue, self._send("POST", f"/queues/{quote(name, safe='')}:{verb}"))

    def files(self, task_id: str) -> list[TaskFile]:
        """Return the files that a task made."""
        return self._parse(TaskFiles, self._send("GET", f"/tasks/{task_id}/files")).items

    def download(self, task_id: str, file: TaskFile, folder: Path) -> Path:
        """Store one file of a task in `folder`, whole or not at all, and return its path."""
        if Path(file.name).name != file.name or file.name in {"", ".", ".."}:
            raise Failure(f"the API named a file {file.name!r}, which is no plain file name")
        target = folder / file.name
        part = target.with_name(target.name + ".part")
        response = self._send("GET", f"/tasks/{task_id}/files/{quote(file.name, safe='')}", stream=True)
        try:
            with part.open("wb") as sink:
                for chunk in self._chunks(response):
                    sink.write(chunk)
            part.replace(target)
        finally:
            response.close()
            part.unlink(missing_ok=True)
        return target

    def _chunks(self, response: httpx2.Response) -> Iterator[bytes]:
        try:
            yield from response.iter_bytes(64 * 1024)
        except httpx2.TransportError as error:
            raise self._unreachable(error) from error

    def _anonymous(self, path: str, body: dict[str, Any]) -> httpx2.Response:
        return self._checked(self._exchange("POST", path, token=None, json=body), hint="")

    def _send(self, method: str, path: str, **parts: Any) -> httpx2.Response:
        response = self._exchange(method, path, token=self._token, **parts)
        if response.status_code == httpx2.codes.UNAUTHORIZED and self._renew():
            response.close()
            response = self._exchange(method, path, token=self._token, **parts)
        return self._checked(
            response, hint=self._login_hint() if response.status_code == httpx2.codes.UNAUTHORIZED else ""
        )

    def _exchange(self, method: str, path: str, **parts: Any) -> httpx2.Response:
        """Send a request, and again after connection errors and 503 where a second time does no harm."""
        harmless = method == "GET" or KEY_HEADER in parts.get("headers", {})
        for backoff_s in BACKOFF_S:
            try:
                response = self._attempt(method, path, **parts)
            except httpx2.TransportError as error:
                if not harmless and not isinstance(error, NOTHING_SENT):
                    raise self._unreachable(error) from error
                wait_s = backoff_s
            else:
                if not harmless or not _will_pass(response):
                    return response
                response.close()
                wait_s = max(backoff_s, _retry_after_s(response))
            time.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
        try:
            return self._attempt(method, path, **parts)
        except httpx2.TransportError as error:
            raise self._unreachable(error) from error

    def _attempt(
        self,
        method: str,
        path: str,
        *,
        token: str | None,
        stream: bool = False,
        headers: Mapping[str, str] | None = None,
        **parts: Any,
    ) -> httpx2.Response:
        bearer = {"Authorization": f"Bearer {token}"} if token else {}
        request = self._http.build_request(method, BASE + path, headers={**(headers or {}), **bearer}, **parts)
        return self._http.send(request, stream=stream)

    def _renew(self) -> bool:
        """Get a new access token. Two commands at once share one renewal: a refresh token works once."""
        if self._credentials is None:
            return False
        with self._credentials.lock():
            login = self._credentials.get(self.location.url)
            if login is None:
                return False
            if login.access_token == self._token:
                body = {"refresh_token": login.refresh_token}
                response = self._exchange("POST", "/auth/refresh", token=None, json=body)
                if response.status_code == httpx2.codes.UNAUTHORIZED:
                    self._credentials.forget(self.location.url)
                    return False
                tokens = self._parse(Tokens, self._checked(response, hint=""))
                login = Login(login.email, tokens.access_token, tokens.refresh_token)
                self._credentials.put(self.location.url, login)
            self._token = login.access_token
        return True

    def _checked(self, response: httpx2.Response, *, hint: str) -> httpx2.Response:
        if response.is_success:
            return response
        try:
            response.read()
            problem = response.json()
        except (ValueError, httpx2.TransportError):
            problem = None
        finally:
            response.close()
        if not isinstance(problem, dict):
            problem = {"title": response.reason_phrase or "the request failed", "detail": str(response.request.url)}
        raise Refused(problem, status=response.status_code, hint=hint)

    def _parse(self, shape: type[W], response: httpx2.Response) -> W:
        try:
            return shape.model_validate_json(response.content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the body"
            raise Unreachable(
                f"{response.request.url} does not answer like TaskFlow {version('taskflow-platform')}",
                details=[f"{where}: {first['msg']}"],
                hint="is this the address of a TaskFlow API? Name it with --api or TASKFLOW_API_URL",
            ) from None

    def _unreachable(self, error: httpx2.TransportError) -> Unreachable:
        why = "no answer in time" if isinstance(error, httpx2.TimeoutException) else str(error)
        return Unreachable(
            f"cannot reach the API at {self.location.url} (from {self.location.source})",
            details=[why or type(error).__name__],
            hint="start a platform with: taskflow up   or name another one with --api or TASKFLOW_API_URL",
        )

    def _login_hint(self) -> str:
        if self._credentials is None:
            return "TASKFLOW_TOKEN is not accepted there: get a new token, or unset it and run: taskflow login"
        return "run: taskflow login"


def _will_pass(response: httpx2.Response) -> bool:
    """Whether the same request may soon be answered: 503, or its first sending is still being worked on."""
    if response.status_code == httpx2.codes.CONFLICT:
        response.read()
        return b'"idempotency_conflict"' in response.content
    return response.status_code == httpx2.codes.SERVICE_UNAVAILABLE


def _retry_after_s(response: httpx2.Response) -> float:
    value = response.headers.get("Retry-After", "")
    return min(float(value), RETRY_AFTER_CAP_S) if value.isdecimal() else 0.0
