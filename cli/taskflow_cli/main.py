"""The `taskflow` command: runs the platform and talks to it."""

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from taskflow_cli import (
    account,
    admin,
    audit,
    batch,
    cluster,
    dead_letters,
    keys,
    processes,
    profile,
    queues,
    schedules,
    simulate,
    tasks,
    webhooks,
    workers,
)
from taskflow_cli.chaos import command as chaos
from taskflow_cli.demo import command as demo
from taskflow_cli.failures import Failure, render
from taskflow_cli.options import examples
from taskflow_cli.profiles import PROFILE_VARIABLE

EPILOG = "\n\n".join(
    [
        examples(
            "taskflow up                          a whole platform on this machine",
            "taskflow register ada@example.com    an account, and log in",
            """taskflow submit REPORT --payload '{"last": "24h"}' --watch""",
            "taskflow ls --status FAILED          what went wrong",
            "taskflow retry ID --json             once more, and JSON for machines",
        ),
        "[bold]Exit codes[/bold]",
        "  0  ok\n  1  the task or the request failed\n  2  wrong usage or environment\n  3  the deadline passed",
    ]
)


def build_app() -> typer.Typer:
    """Return the command with all its subcommands."""
    app = typer.Typer(
        name="taskflow",
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog=EPILOG,
        help="Run typed tasks durably: submit them over REST, follow them live, run the platform that works on them.",
    )
    app.callback()(_root)
    running = (processes, demo, audit, chaos)
    working = (tasks, batch, dead_letters, schedules, queues, workers, webhooks)
    for module in (*running, *working, account, profile, keys, admin, cluster, simulate):
        module.add_commands(app)
    return app


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command with the arguments given, or those of the process, and leave with its exit code."""
    try:
        build_app()(args=argv, prog_name="taskflow")
    except Failure as failure:
        sys.stderr.write(render(failure) + "\n")
        raise SystemExit(failure.exit_code) from None


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # --help does without

        sys.stdout.write(f"taskflow {version('taskflow-platform')}\n")
        raise typer.Exit


def _root(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
    profile_name: Annotated[
        str | None, typer.Option("--profile", metavar="NAME", help="Use this profile of config.toml.")
    ] = None,
) -> None:
    """Take the options of the command itself."""
    if profile_name is not None:
        os.environ[PROFILE_VARIABLE] = profile_name
