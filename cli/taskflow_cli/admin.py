"""Commands for who runs the platform: admin create works at its database, the others over the API."""

import asyncio
import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from taskflow_cli import users
from taskflow_cli.account import Email, PasswordStdin, read_password
from taskflow_cli.failures import BadInput, Failure
from taskflow_cli.location import platform_environment
from taskflow_cli.options import ACCOUNT_PANEL, AsJson, examples
from taskflow_cli.output import print_json, say

if TYPE_CHECKING:
    from taskflow_core.models.users import User
    from taskflow_core.settings import Settings


class StaffRole(StrEnum):
    """The roles that reach beyond one's own tasks."""

    OPERATOR = "OPERATOR"
    ADMIN = "ADMIN"


def add_commands(app: typer.Typer) -> None:
    """Add this module's commands."""
    line = "taskflow admin create root@example.com"
    group = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode="rich",
        help="Make accounts that may see and control everything; change those of others.",
        epilog=examples(line),
    )
    group.command(
        epilog=examples(line, "pass show ops | taskflow admin create ops@example.com --role operator --password-stdin")
    )(create)
    users.add_to(group)
    app.add_typer(group, name="admin", rich_help_panel=ACCOUNT_PANEL)


def create(
    email: Email,
    role: Annotated[StaffRole, typer.Option(case_sensitive=False, help="What the account may do.")] = StaffRole.ADMIN,
    password_stdin: PasswordStdin = False,
    as_json: AsJson = False,
) -> None:
    """Create an ADMIN or OPERATOR account in the database.

    The database is the one of TASKFLOW_DATABASE_URL, or else of the platform in this folder. The password is asked
    for, or read from standard input. It is never an argument, which others could see.
    """
    from taskflow_core.passwords import MAX_CHARACTERS, MIN_CHARACTERS
    from taskflow_core.settings import Settings, load_or_exit

    for name, value in platform_environment(Path.cwd()).items():
        os.environ.setdefault(name, value)
    settings = load_or_exit(Settings)
    password = read_password(from_stdin=password_stdin, confirm=True)
    if not MIN_CHARACTERS <= len(password) <= MAX_CHARACTERS:
        raise BadInput(f"the password must have {MIN_CHARACTERS} to {MAX_CHARACTERS} characters")
    user = asyncio.run(_create(settings, email, password, role))
    if as_json:
        print_json({"id": str(user.id), "email": user.email, "role": user.role})
    else:
        say(f"{user.email} is {user.role}. Log in with: taskflow login {user.email}")


async def _create(settings: "Settings", email: str, password: str, role: StaffRole) -> "User":
    from sqlalchemy.exc import SQLAlchemyError

    from taskflow_core import users as accounts
    from taskflow_core.database import create_engine, create_sessions
    from taskflow_core.errors import AlreadyRegistered, Invalid
    from taskflow_core.models.users import Role
    from taskflow_core.passwords import Passwords
    from taskflow_core.settings import BCRYPT_ROUNDS

    engine, passwords = create_engine(settings, service="admin", pool_size=1), Passwords(rounds=BCRYPT_ROUNDS)
    try:
        address = accounts.normalise_email(email)
        password_hash = await passwords.hash(password)
        async with create_sessions(engine)() as session:
            user = await accounts.register(session, email=address, password_hash=password_hash, role=Role(role))
            await session.commit()
    except Invalid as error:
        raise BadInput(error.message, details=[problem.message for problem in error.fields]) from None
    except AlreadyRegistered:
        raise Failure(f"{email} has an account already", hint="choose another address") from None
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", error)).strip().splitlines()[:1]
        raise BadInput("cannot use the database that TASKFLOW_DATABASE_URL names", details=reason) from None
    finally:
        passwords.close()
        await engine.dispose()
    return user
