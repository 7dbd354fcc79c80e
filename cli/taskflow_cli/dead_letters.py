"""Commands for tasks that ran out of attempts: dead-letters ls, retry."""

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from taskflow_cli.connection import connect
from taskflow_cli.failures import BadInput
from taskflow_cli.options import TASK_PANEL, Api, AsJson, examples
from taskflow_cli.output import age, print_json, print_json_array, print_table, say

if TYPE_CHECKING:
    from taskflow_cli.wire import Task

PAGE_LIMIT = 100

Type = Annotated[str | None, typer.Option("--type", metavar="TYPE", help="Only this type.")]
Queue = Annotated[str | None, typer.Option(help="Only this queue.")]
Code = Annotated[str | None, typer.Option("--error-code", metavar="CODE", help="Only this error code.")]


def add_commands(app: typer.Typer) -> None:
    """Add this module's commands."""
    group = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode="rich",
        help="See why tasks are FAILED, and retry many at once.",
        epilog=examples("taskflow dead-letters ls --error-code timeout", "taskflow dead-letters retry --type SYNC"),
    )
    group.command("ls", epilog=examples("taskflow dead-letters ls", "taskflow dead-letters ls --queue low --json"))(
        list_failed
    )
    group.command(epilog=examples("taskflow dead-letters retry --type SYNC --error-code timeout --yes"))(retry)
    app.add_typer(group, name="dead-letters", rich_help_panel=TASK_PANEL)


def list_failed(
    type_: Type = None,
    queue: Queue = None,
    error_code: Code = None,
    limit: Annotated[int, typer.Option(min=1, max=PAGE_LIMIT, help="How many, newest first.")] = 20,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """List FAILED tasks with their errors, newest first."""
    filters = {"status": "FAILED", "type": type_, "queue": queue, "error_code": error_code}
    with connect(api) as client:
        found = client.tasks(limit=limit, filters=filters).items
    if as_json:
        print_json_array(task.to_json() for task in found)
    else:
        print_table(("ID", "TYPE", "QUEUE", "AGE", "CODE", "MESSAGE"), map(_row, found))


def retry(
    type_: Type = None,
    queue: Queue = None,
    error_code: Code = None,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Give every matching FAILED task a fresh set of attempts; without options, all of them."""
    filters = {"type": type_, "queue": queue, "error_code": error_code}
    chosen = {name: value for name, value in filters.items() if value is not None}
    with connect(api) as client:
        count = client.count_tasks({"status": "FAILED", **chosen})
        if count and not yes:
            _confirm(count)
        done = client.bulk_retry(chosen, expected_count=count) if count else None
    retried, skipped = (done.retried, done.skipped) if done else (0, 0)
    if as_json:
        print_json({"retried": retried, "skipped": skipped})
    else:
        left = f"; {skipped} left, because another task holds their dedup_key" if skipped else ""
        say(f"Retried {retried} of {count} FAILED tasks{left}.")


def _confirm(count: int) -> None:
    if not sys.stdin.isatty():
        raise BadInput(f"{count} FAILED tasks match", hint="to retry them all, add --yes")
    typer.confirm(f"Retry {count} FAILED tasks?", abort=True, err=True)


def _row(task: "Task") -> tuple[str, ...]:
    error = task.error or {}
    message = str(error.get("message", "")).partition("\n")[0]
    return (
        task.id,
        task.type,
        task.queue,
        age(task.created_at, now=datetime.now(UTC)),
        str(error.get("code", "")),
        message,
    )
