"""The command `taskflow demo`."""

import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from taskflow_cli.connection import client_of
from taskflow_cli.failures import BadInput
from taskflow_cli.location import PLATFORM_FILE, Location, locate, read_platform
from taskflow_cli.options import RUN_PANEL, Api, examples
from taskflow_cli.output import say
from taskflow_cli.processes import require_embedded

FOLDER = Path(".taskflow/demo")


def add_commands(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command(
        rich_help_panel=RUN_PANEL,
        epilog=examples("taskflow demo --embedded", "taskflow demo --api http://127.0.0.1:8000"),
    )(demo)


def demo(
    embedded: Annotated[
        bool, typer.Option("--embedded", help="Start a platform for the demo, and stop it afterwards.")
    ] = False,
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", metavar="FOLDER", help="With --embedded: its data, kept. Default: a temporary one."),
    ] = None,
    api: Api = None,
) -> None:
    """Run a task of each type, follow them live, and show what they left behind.

    An EMAIL, a REPORT and a SYNC are submitted by a throw-away user to a running platform, or with --embedded to one of
    its own. The SYNC pulls from a small server on this machine, so the workers must run here too, with 127.0.0.1 in
    TASKFLOW_FETCH_ALLOW_HOSTS. Files go to ./.taskflow/demo. Leaves with 0 only if everything went well.
    """
    if embedded and api is not None:
        raise BadInput("--embedded and --api exclude each other")
    if data_dir is not None and not embedded:
        raise BadInput("--data-dir needs --embedded")
    started = time.monotonic()
    with ExitStack() as stack:
        if embedded:
            location, state = _start(stack, data_dir)
        else:
            location = locate(api, environ=os.environ, folder=Path.cwd())
            state = read_platform(PLATFORM_FILE) or {}
        succeeded = _play(location, state)
        say(f"{'All done' if succeeded else 'Not all went well'} in {time.monotonic() - started:.1f} s.")
    raise typer.Exit(0 if succeeded else 1)


def _start(stack: ExitStack, data_dir: Path | None) -> tuple[Location, dict[str, Any]]:
    require_embedded()
    from taskflow_cli.demo.platform import embedded_platform

    say("Starting a platform (PostgreSQL, Valkey, API, worker, scheduler) ...")
    state = stack.enter_context(embedded_platform(data_dir))
    return Location(str(state["api_url"]), "--embedded"), state


def _play(location: Location, state: dict[str, Any]) -> bool:
    from taskflow_cli.demo.scenario import play

    is_ours = state.get("api_url") == location.url and "mail_dir" in state
    with client_of(location) as client:
        return play(client, mail_dir=Path(state["mail_dir"]) if is_ours else None, folder=FOLDER)
