"""Commands that say who asks: register, login, logout, whoami, password, sessions."""

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from taskflow_cli.connection import KEY_VARIABLE, TOKEN_VARIABLE, connect, given_token, here, refused, stored_logins
from taskflow_cli.credentials import Login
from taskflow_cli.failures import BadInput, Failure, printable
from taskflow_cli.options import ACCOUNT_PANEL, EXAMPLE_ID, Api, AsJson, examples
from taskflow_cli.output import moment, print_items, print_json, say

if TYPE_CHECKING:
    from taskflow_client.models import Session, TokenPair
    from taskflow_client.sync import TaskFlow

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
    app.command(rich_help_panel=ACCOUNT_PANEL, epilog=examples("taskflow password"))(password)
    group = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode="rich",
        help="See where you are logged in; end what is not you.",
        epilog=examples("taskflow sessions ls"),
    )
    group.command("ls", epilog=examples("taskflow sessions ls", "taskflow sessions ls --json"))(list_sessions)
    group.command("end", epilog=examples("taskflow sessions end --all", f"taskflow sessions end {EXAMPLE_ID}"))(
        end_sessions
    )
    app.add_typer(group, name="sessions", rich_help_panel=ACCOUNT_PANEL)


def register(email: Email, password_stdin: PasswordStdin = False, api: Api = None, as_json: AsJson = False) -> None:
    """Create an account and log in.

    The password is asked for, or read from standard input. It is never an argument, which others could see.
    """
    with connect(api) as client:
        password = read_password(from_stdin=password_stdin, confirm=True)
        client.account.register(email, password)
        _log_in(client, email, password, api=api, as_json=as_json)


def login(email: Email, password_stdin: PasswordStdin = False, api: Api = None, as_json: AsJson = False) -> None:
    """Log in; the tokens are kept in a file only you can read.

    The file is $XDG_CONFIG_HOME/taskflow/credentials.json or ~/.config/taskflow/credentials.json, with one login for
    each API. The access token is renewed by itself.
    """
    with connect(api) as client:
        _log_in(client, email, read_password(from_stdin=password_stdin, confirm=False), api=api, as_json=as_json)


def logout(api: Api = None, as_json: AsJson = False) -> None:
    """End the login and forget its tokens."""
    logins, location = stored_logins(), here(api)
    url, key = location.url, location.login_key
    with logins.lock():
        login = logins.get(key)
        logins.forget(key)
    ended = login is not None and _end(api, login)
    if as_json:
        print_json({"api_url": url, "logged_out": login is not None, "ended_at_api": ended})
    elif login is None:
        say(f"No login is stored for {url}.")
    else:
        say(f"Logged out {login.email} at {url}.")


def whoami(api: Api = None, as_json: AsJson = False) -> None:
    """Show the account and the API in use."""
    with connect(api) as client:
        user = client.account.me()
    location = here(api)
    if as_json:
        print_json(user.to_json() | {"api_url": location.url, "api_url_from": location.source})
    else:
        say(f"{user.email} ({user.role}) at {location.url} (from {location.source})")


def password(password_stdin: PasswordStdin = False, api: Api = None, as_json: AsJson = False) -> None:
    """Replace your password; every other session ends.

    Both passwords are asked for, or read from the first two lines of standard input: the old one, then the new one.
    """
    from taskflow_client.calls import access

    with connect(api) as client:
        old = read_password(from_stdin=password_stdin, confirm=False, prompt="Old password")
        new = read_password(from_stdin=password_stdin, confirm=True, prompt="New password")
        pair = client.connection.call(access.change_password(old, new))
        email = client.account.me().email if given_token(os.environ) else None
    if email is None:
        _keep(pair, api=api)
    if as_json:
        print_json({"changed": True})
    else:
        say("The password is changed. Every other session has ended.")


def list_sessions(api: Api = None, as_json: AsJson = False) -> None:
    """List where you are logged in, the last used first."""
    with connect(api) as client:
        found = client.account.sessions()
    print_items(found, ("ID", "LAST USED", "ENDS", "ADDRESS", "HERE", "PROGRAM"), _session_row, as_json=as_json)


def end_sessions(
    session_id: Annotated[UUID | None, typer.Argument(metavar="ID", help="The session's id.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every session and access token of yours.")] = False,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """End a session, or all of them."""
    if (session_id is None) != all_:
        raise BadInput("name one session, or give --all")
    with connect(api) as client:
        if session_id is None:
            client.account.logout_all()
        else:
            client.account.end_session(session_id)
    if as_json:
        print_json({"ended": "all" if session_id is None else str(session_id)})
    else:
        say("All your sessions have ended." if session_id is None else f"Session {session_id} has ended.")


def _session_row(session: "Session") -> tuple[str, ...]:
    times = (moment(session.last_used_at), moment(session.expires_at))
    return (session.id, *times, session.address, "here" if session.current else "", session.user_agent)


def _log_in(client: "TaskFlow", email: str, password: str, *, api: str | None, as_json: bool) -> None:
    from taskflow_client.calls import access
    from taskflow_client.errors import NotAuthenticated

    try:
        pair = client.connection.call(access.login(email, password))
    except NotAuthenticated as problem:
        raise refused(problem) from None  # to log in is no way on here
    url = _keep(pair, api=api, email=email)
    if as_json:
        print_json({"api_url": url, "email": email})
    else:
        say(f"Logged in as {email} at {url}.")
    for name in (TOKEN_VARIABLE, KEY_VARIABLE):
        if os.environ.get(name):
            sys.stderr.write(f"taskflow: {name} is set and goes before this login; unset it to use the login\n")


def _keep(pair: "TokenPair", *, api: str | None, email: str = "") -> str:
    """Keep the tokens of a login, and return its API."""
    logins, location = stored_logins(), here(api)
    with logins.lock():
        known = logins.get(location.login_key)
        email = email or (known.email if known else "")
        logins.put(location.login_key, Login(email, pair.access_token, pair.refresh_token))
    return location.url


def _end(api: str | None, login: Login) -> bool:
    from taskflow_client.calls import access

    try:
        with connect(api) as client:
            client.connection.call(access.logout(login.refresh_token))
    except Failure as failure:
        sys.stderr.write(f"taskflow: forgotten here, but not ended at the API: {printable(failure.message)}\n")
        return False
    return True


def read_password(*, from_stdin: bool, confirm: bool, prompt: str = "Password") -> str:
    """Return the password from standard input or a prompt without echo.

    Raises:
        BadInput: it is empty, or there is no terminal to ask on.
    """
    if from_stdin:
        password = sys.stdin.readline(MAX_PASSWORD_BYTES).rstrip("\r\n")
    elif sys.stdin.isatty():
        answer: Any = typer.prompt(prompt, hide_input=True, confirmation_prompt=confirm, err=True)
        password = str(answer)
    else:
        raise BadInput(
            "standard input is no terminal to ask for a password on", hint="pipe it in with --password-stdin"
        )
    if not password:
        raise BadInput("the password is empty")
    return password
