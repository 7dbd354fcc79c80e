"""Commands for who administers a platform over its API: admin users, promote, disable, enable, security-events."""

from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taskflow_cli.account import Email
from taskflow_cli.connection import connect
from taskflow_cli.failures import BadInput
from taskflow_cli.options import Api, AsJson, examples
from taskflow_cli.output import moment, print_items, print_one

if TYPE_CHECKING:
    from taskflow_client.models import SecurityEvent, User


class AnyRole(StrEnum):
    """What an account may be."""

    USER = "USER"
    OPERATOR = "OPERATOR"
    ADMIN = "ADMIN"


def add_to(group: typer.Typer) -> None:
    """Add this module's commands to the group `admin`."""
    commands: tuple[tuple[Callable[..., None], str], ...] = (
        (users, "taskflow admin users --role admin"),
        (promote, "taskflow admin promote ada@example.com operator"),
        (disable, "taskflow admin disable eve@example.com"),
        (enable, "taskflow admin enable eve@example.com"),
        (security_events, "taskflow admin security-events --kind login.failed"),
    )
    for command, line in commands:
        group.command(epilog=examples(line))(command)


def users(
    role: Annotated[AnyRole | None, typer.Option(case_sensitive=False, help="Only this role.")] = None,
    disabled: Annotated[bool | None, typer.Option(help="Only disabled accounts, or only active ones.")] = None,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """List the accounts, newest first."""
    headings = ("ID", "ROLE", "STATE", "LAST LOGIN", "EMAIL")
    with connect(api) as client:
        found = client.admin.users(role=role.value if role else None, disabled=disabled)
        print_items(found, headings, _row, as_json=as_json)


def promote(
    email: Email,
    role: Annotated[AnyRole, typer.Argument(case_sensitive=False, help="What the account may do.")],
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Give an account another role; the last active ADMIN stays one."""
    _change(email, api=api, as_json=as_json, role=role.value)


def disable(email: Email, api: Api = None, as_json: AsJson = False) -> None:
    """Shut an account out: its sessions and keys end."""
    _change(email, api=api, as_json=as_json, disabled=True)


def enable(email: Email, api: Api = None, as_json: AsJson = False) -> None:
    """Let an account in again."""
    _change(email, api=api, as_json=as_json, disabled=False)


def security_events(
    kind: Annotated[str | None, typer.Option(metavar="KIND", help="Only this kind, such as login.failed.")] = None,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """List what happened to accounts and access, newest first."""
    headings = ("AT", "KIND", "ACCOUNT", "ADDRESS")
    with connect(api) as client:
        print_items(client.admin.security_events(kind=kind), headings, _event_row, as_json=as_json)


def _change(email: str, *, api: str | None, as_json: bool, **wanted: Any) -> None:
    with connect(api) as client:
        found = [user for user in client.admin.users(email=email) if user.email == email.lower()]
        if not found:
            raise BadInput(f"no account has the address {email}", hint="list them with: taskflow admin users")
        user = client.admin.change_user(found[0].id, **wanted)
    print_one(user, _told, as_json=as_json)


def _row(user: "User") -> tuple[str, ...]:
    return (user.id, user.role, "disabled" if user.disabled else "active", moment(user.last_login_at), user.email)


def _told(user: "User") -> str:
    return f"{user.email} is {user.role} and {'disabled' if user.disabled else 'active'}."


def _event_row(event: "SecurityEvent") -> tuple[str, ...]:
    return (moment(event.created_at), event.kind, event.user_id or "-", event.address)
