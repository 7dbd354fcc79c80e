"""A client for the command that runs: address and token resolved, heavy imports only now."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from taskflow_cli.credentials import Credentials
from taskflow_cli.location import locate

if TYPE_CHECKING:
    from taskflow_cli.client import Client

TOKEN_VARIABLE = "TASKFLOW_TOKEN"  # noqa: S105 - the name of a variable


def connect(api: str | None) -> "Client":
    """Return a client of the platform that `--api`, the environment or this folder names.

    Raises:
        BadInput: the address or the credentials file cannot be used.
    """
    from taskflow_cli.client import Client  # HTTP and validation take 0.3 s to import; --help does without

    location = locate(api, environ=os.environ, folder=Path.cwd())
    token = os.environ.get(TOKEN_VARIABLE)
    if token:
        return Client(location, token=token)
    return Client(location, credentials=stored_logins())


def stored_logins() -> Credentials:
    """Return the credentials file of this user."""
    return Credentials.of_user(os.environ)
