"""Commands for profiles: profile ls, use."""

import os
from typing import Annotated

import typer

from taskflow_cli.options import ACCOUNT_PANEL, AsJson, examples
from taskflow_cli.output import print_json, print_json_array, print_table, say
from taskflow_cli.profiles import Profiles


def add_commands(app: typer.Typer) -> None:
    """Add this module's commands."""
    group = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode="rich",
        help="APIs with names, from config.toml.",
        epilog=examples("taskflow profile ls", "taskflow --profile prod whoami"),
    )
    group.command("ls", epilog=examples("taskflow profile ls"))(list_profiles)
    group.command(epilog=examples("taskflow profile use prod"))(use)
    app.add_typer(group, name="profile", rich_help_panel=ACCOUNT_PANEL)


def list_profiles(as_json: AsJson = False) -> None:
    """List the profiles of your config.toml."""
    profiles = Profiles.of_user(os.environ)
    rows = [(name, profiles.address(name), name == profiles.current) for name in profiles.names()]
    if as_json:
        print_json_array({"name": name, "api": address, "default": chosen} for name, address, chosen in rows)
    else:
        print_table(("", "NAME", "API"), (("*" if chosen else "", name, address) for name, address, chosen in rows))


def use(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The profile's name.")], as_json: AsJson = False
) -> None:
    """Use a profile from now on, where no option or variable says otherwise."""
    profiles = Profiles.of_user(os.environ)
    profiles.use(name)
    if as_json:
        print_json({"profile": name, "api": profiles.address(name)})
    else:
        say(f"Profile {name} ({profiles.address(name)}) is used from now on.")
