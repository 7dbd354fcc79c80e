"""A client for the command that runs: address and login resolved, its errors told as failures."""

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from taskflow_cli.credentials import Credentials, Login
from taskflow_cli.failures import BadInput, DeadlinePassed, Failure, Refused, Unreachable
from taskflow_cli.location import Location, locate

if TYPE_CHECKING:
    from taskflow_client.errors import Problem, TaskFlowFailure
    from taskflow_client.sync import TaskFlow
    from taskflow_client.tokens import Tokens

TOKEN_VARIABLE = "TASKFLOW_TOKEN"  # noqa: S105 - the name of a variable
KEY_VARIABLE = "TASKFLOW_API_KEY"


class StoredLogin:
    """The tokens of one login in the credentials file, as the client keeps them."""

    def __init__(self, credentials: Credentials, key: str) -> None:
        self._credentials = credentials
        self._key = key

    def load(self) -> "Tokens | None":
        """Return the tokens, or None without a login."""
        from taskflow_client.tokens import Tokens

        login = self._credentials.get(self._key)
        return None if login is None else Tokens(login.access_token, login.refresh_token)

    def save(self, tokens: "Tokens | None") -> None:
        """Keep other tokens, or none."""
        login = self._credentials.get(self._key)
        if tokens is None:
            self._credentials.forget(self._key)
        else:
            email = login.email if login else ""
            self._credentials.put(self._key, Login(email, tokens.access, tokens.refresh))

    def lock(self) -> AbstractContextManager[None]:
        """Keep other commands from changing the tokens until the block ends."""
        return self._credentials.lock()


def here(api: str | None) -> Location:
    """Return the address that `--api`, the environment, a profile or this folder names.

    Raises:
        BadInput: it cannot be used.
    """
    return locate(api, environ=os.environ, folder=Path.cwd())


def stored_logins() -> Credentials:
    """Return the credentials file of this user."""
    return Credentials.of_user(os.environ)


def given_token(environ: Mapping[str, str]) -> str | None:
    """Return the access token or API key of the environment.

    Raises:
        BadInput: there are both.
    """
    token, key = environ.get(TOKEN_VARIABLE), environ.get(KEY_VARIABLE)
    if token and key:
        raise BadInput(f"{TOKEN_VARIABLE} and {KEY_VARIABLE} are both set", hint="unset one of them")
    return token or key or None


@contextmanager
def connect(api: str | None) -> Iterator["TaskFlow"]:
    """Yield a client of the API, with the token of the environment or else the stored login.

    Raises:
        Failure: what the client raised inside the block, told for people.
        BadInput: the address or the credentials file cannot be used.
    """
    location, token = here(api), given_token(os.environ)
    with client_of(location, token=token, credentials=stored_logins()) as client:
        yield client


@contextmanager
def client_of(
    location: Location, *, token: str | None = None, credentials: Credentials | None = None
) -> Iterator["TaskFlow"]:
    """Yield a client of the API at a location; without `credentials` a login lives as long as the client."""
    from taskflow_client.errors import TaskFlowFailure  # HTTP and validation take 0.3 s to import; --help does without
    from taskflow_client.sync import TaskFlow

    store = StoredLogin(credentials, location.login_key) if credentials is not None else None
    agent = f"taskflow-cli/{version('taskflow-platform')}"
    trust_env = not location.is_loopback  # a proxy of the environment cannot reach this machine
    try:
        with TaskFlow(location.url, token=token, store=store, user_agent=agent, trust_env=trust_env) as client:
            yield client
    except TaskFlowFailure as error:
        raise told(error, location, has_token=token is not None) from error


def told(error: "TaskFlowFailure", location: Location, *, has_token: bool) -> Failure:
    """Return an error of the client as a failure with a way on."""
    from taskflow_client import errors

    match error:
        case errors.Problem():
            hint = _login_hint(has_token=has_token) if isinstance(error, errors.NotAuthenticated) else ""
            return refused(error, hint=hint)
        case errors.Unreachable():
            return Unreachable(
                f"cannot reach the API at {location.url} (from {location.source})",
                details=[error.reason],
                hint="start a platform with: taskflow up   or name another one with --api or TASKFLOW_API_URL",
            )
        case errors.UnexpectedAnswer():
            return Unreachable(
                f"{error.url} does not answer like TaskFlow {version('taskflow-platform')}",
                details=[error.reason],
                hint="is this the address of a TaskFlow API? Name it with --api or TASKFLOW_API_URL",
            )
        case errors.DeadlinePassed():
            return DeadlinePassed(str(error))
        case _:
            return Failure(str(error))


def refused(problem: "Problem", *, hint: str = "") -> Refused:
    """Return what the API said no with."""
    return Refused({**problem.document, "title": problem.title}, status=problem.status, hint=hint)


def _login_hint(*, has_token: bool) -> str:
    if has_token:
        return f"{TOKEN_VARIABLE} or {KEY_VARIABLE} is not accepted there: get a new one, or unset it: taskflow login"
    return "run: taskflow login"
