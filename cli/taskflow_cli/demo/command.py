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
        epilog=examples(
            "taskflow demo --embedded",
            "taskflow demo --api http://127.0.0.1:8000",
            "taskflow demo --api https://tasks.example.com --source http://demo-source.taskflow:8080/products",
        ),
    )(demo)


def demo(
    embedded: Annotated[
        bool, typer.Option("--embedded", help="Start a platform for the demo, and stop it afterwards.")
    ] = False,
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", metavar="FOLDER", help="With --embedded: its data, kept. Default: a temporary one."),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--source", metavar="URL", help="Where `python -m taskflow_cli.demo.source` serves SYNC's records."
        ),
    ] = None,
    api: Api = None,
) -> None:
    """Run a task of each type, follow them live, and show what they left behind.

    An EMAIL, a REPORT and a SYNC are submitted by a throw-away user to a running platform, or with --embedded to one of
    its own. The SYNC pulls from a small server on this machine, if the workers may fetch from here, or else from the
    one that runs beside them under docker compose. Files go to ./.taskflow/demo. Leaves with 0 only if everything went
    well.
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
        succeeded = _play(location, state, source)
        say(f"{'All done' if succeeded else 'Not all went well'} in {time.monotonic() - started:.1f} s.")
    raise typer.Exit(0 if succeeded else 1)


def _start(stack: ExitStack, data_dir: Path | None) -> tuple[Location, dict[str, Any]]:
    require_embedded()
    from taskflow_cli.demo.platform import embedded_platform

    say("Starting a platform (PostgreSQL, Valkey, API, worker, scheduler) ...")
    state = stack.enter_context(embedded_platform(data_dir))
    return Location(str(state["api_url"]), "--embedded"), state


def _play(location: Location, state: dict[str, Any], source_url: str | None) -> bool:
    from taskflow_cli.demo.scenario import Setting, play

    is_here = state.get("api_url") == location.url and _is_running(state.get("pid"))
    setting = Setting(
        mail_dir=Path(state["mail_dir"]) if is_here and "mail_dir" in state else None,
        folder=FOLDER,
        source_url=source_url,
        is_here=is_here,
    )
    with client_of(location) as client:
        return play(client, setting)


def _is_running(pid: object) -> bool:
    """Whether the platform of that pid still runs: one that was killed left its file, with the mail of before."""
    from taskflow_cli.embedded.process import is_alive

    return isinstance(pid, int) and pid > 0 and is_alive(pid)
