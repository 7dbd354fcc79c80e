"""Commands that say who asks: register, login, logout, whoami."""

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taskflow_cli.connection import TOKEN_VARIABLE, connect, stored_logins
from taskflow_cli.credentials import Login
from taskflow_cli.failures import BadInput, Failure, printable
from taskflow_cli.options import ACCOUNT_PANEL, Api, AsJson, examples
from taskflow_cli.output import print_json, say

if TYPE_CHECKING:
    from taskflow_cli.client import Client

MAX_PASSWORD_BYTES = 4096

Email = Annotated[str, typer.Argument(metavar="EMAIL", help="The account's email address.")]
PasswordStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]


def add_commands(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command(
        rich_help_panel=ACCOUNT_PANEL,
        epilog=examples(
            "taskflow register ada@example.com",
            "pass show taskflow | taskflow register ada@example.com --password-stdin",
        ),
    )(register)
    app.command(
        rich_help_panel=ACCOUNT_PANEL,
        epilog=examples(
            "taskflow login ada@example.com", "taskflow login ada@example.com --api https://tasks.example.com"
        ),
    )(login)
    app.command(rich_help_panel=ACCOUNT_PANEL, epilog=examples("taskflow logout"))(logout)
    app.command(rich_help_panel=ACCOUNT_PANEL, epilog=examples("taskflow whoami", "taskflow whoami --json"))(whoami)


def register(email: Email, password_stdin: PasswordStdin = False, api: Api = None, as_json: AsJson = False) -> None:
    """Create an account and log in.

    The password is asked for, or read from standard input. It is never an argument, which others could see.
    """
    with connect(api) as client:
        password = read_password(from_stdin=password_stdin, confirm=True)
        client.register(email, password)
        _log_in(client, email, password, as_json=as_json)


def login(email: Email, password_stdin: PasswordStdin = False, api: Api = None, as_json: AsJson = False) -> None:
    """Log in; the tokens are kept in a file only you can read.

    The file is $XDG_CONFIG_HOME/taskflow/credentials.json or ~/.config/taskflow/credentials.json, with one login for
    each API. The access token is renewed by itself.
    """
    with connect(api) as client:
        _log_in(client, email, read_password(from_stdin=password_stdin, confirm=False), as_json=as_json)


def logout(api: Api = None, as_json: AsJson = False) -> None:
    """End the login and forget its tokens."""
    logins = stored_logins()
    with connect(api) as client:
        url = client.location.url
        with logins.lock():
            login = logins.get(url)
            logins.forget(url)
        ended = login is not None and _end(client, login)
    if as_json:
        print_json({"api_url": url, "logged_out": login is not None, "ended_at_api": ended})
    elif login is None:
        say(f"No login is stored for {url}.")
    else:
        say(f"Logged out {login.email} at {url}.")


def whoami(api: Api = None, as_json: AsJson = False) -> None:
    """Show the account and the API in use."""
    with connect(api) as client:
        user = client.me()
        location = client.location
    if as_json:
        print_json(user.to_json() | {"api_url": location.url, "api_url_from": location.source})
    else:
        say(f"{user.email} ({user.role}) at {location.url} (from {location.source})")


def _log_in(client: "Client", email: str, password: str, *, as_json: bool) -> None:
    tokens = client.login(email, password)
    logins, url = stored_logins(), client.location.url
    with logins.lock():
        logins.put(url, Login(email, tokens.access_token, tokens.refresh_token))
    if as_json:
        print_json({"api_url": url, "email": email})
    else:
        say(f"Logged in as {email} at {url}.")
    if os.environ.get(TOKEN_VARIABLE):
        sys.stderr.write(f"taskflow: {TOKEN_VARIABLE} is set and goes before this login; unset it to use the login\n")


def _end(client: "Client", login: Login) -> bool:
    try:
        client.logout(login.refresh_token)
    except Failure as failure:
        sys.stderr.write(f"taskflow: forgotten here, but not ended at the API: {printable(failure.message)}\n")
        return False
    return True


def read_password(*, from_stdin: bool, confirm: bool) -> str:
    """Return the password from standard input or a prompt without echo.

    Raises:
        BadInput: it is empty, or there is no terminal to ask on.
    """
    if from_stdin:
        password = sys.stdin.readline(MAX_PASSWORD_BYTES).rstrip("\r\n")
    elif sys.stdin.isatty():
        answer: Any = typer.prompt("Password", hide_input=True, confirmation_prompt=confirm, err=True)
        password = str(answer)
    else:
        raise BadInput(
            "standard input is no terminal to ask for a password on", hint="pipe it in with --password-stdin"
        )
    if not password:
        raise BadInput("the password is empty")
    return password
