"""Commands for tasks that ran out of attempts: dead-letters ls, retry."""

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from taskflow_cli.connection import connect
from taskflow_cli.failures import BadInput
from taskflow_cli.options import TASK_PANEL, Api, AsJson, examples
from taskflow_cli.output import age, print_items, print_json, say

if TYPE_CHECKING:
    from taskflow_client.models import Task

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
    with connect(api) as client:
        page = client.tasks.page(status="FAILED", type=type_, queue=queue, error_code=error_code, limit=limit)
    print_items(page.items, ("ID", "TYPE", "QUEUE", "AGE", "CODE", "MESSAGE"), _row, as_json=as_json)


def retry(
    type_: Type = None,
    queue: Queue = None,
    error_code: Code = None,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Give every matching FAILED task a fresh set of attempts; without options, all of them."""
    with connect(api) as client:
        page = client.tasks.page(status="FAILED", type=type_, queue=queue, error_code=error_code, page=1, limit=1)
        count = page.total or 0
        if count and not yes:
            _confirm(count)
        filters = {"type": type_, "queue": queue, "error_code": error_code}
        done = client.tasks.bulk_retry(expected_count=count, **filters) if count else None
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
