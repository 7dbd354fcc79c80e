"""Commands that work with tasks: submit, watch, ls, show, cancel, retry."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taskflow_cli.connection import connect
from taskflow_cli.options import TASK_PANEL, Api, AsJson, TaskId, WatchTimeout, examples
from taskflow_cli.output import print_end, print_json, print_json_array, print_task, print_tasks, say
from taskflow_cli.payloads import read_payload
from taskflow_core.lifecycle import TaskStatus

if TYPE_CHECKING:
    from taskflow_cli.client import Client
    from taskflow_cli.wire import Task

PAGE_LIMIT = 100
WATCH_S = 600.0


def add_commands(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command(
        rich_help_panel=TASK_PANEL,
        epilog=examples(
            """taskflow submit REPORT --payload '{"last": "24h", "format": ["csv", "pdf"]}'""",
            "taskflow submit EMAIL --payload @mail.json --title 'Welcome Ada' --watch",
            "generate-payload | taskflow submit SYNC --payload - --dedup-key prices --json",
        ),
    )(submit)
    app.command(
        rich_help_panel=TASK_PANEL,
        epilog=examples(
            "taskflow watch 01936f5e-7c1a-7d3e-9c55-0242ac120002",
            "taskflow watch 01936f5e-7c1a-7d3e-9c55-0242ac120002 --timeout 30 --json",
        ),
    )(watch)
    app.command(
        "ls",
        rich_help_panel=TASK_PANEL,
        epilog=examples(
            "taskflow ls", "taskflow ls --status FAILED --type EMAIL", "taskflow ls --all --json | jq -r '.[].id'"
        ),
    )(list_tasks)
    app.command(rich_help_panel=TASK_PANEL, epilog=examples("taskflow show 01936f5e-7c1a-7d3e-9c55-0242ac120002"))(show)
    app.command(rich_help_panel=TASK_PANEL, epilog=examples("taskflow cancel 01936f5e-7c1a-7d3e-9c55-0242ac120002"))(
        cancel
    )
    app.command(rich_help_panel=TASK_PANEL, epilog=examples("taskflow retry 01936f5e-7c1a-7d3e-9c55-0242ac120002"))(
        retry
    )


def submit(
    type_: Annotated[str, typer.Argument(metavar="TYPE", help="EMAIL, REPORT, SYNC or an installed plugin's type.")],
    payload: Annotated[
        str, typer.Option("--payload", metavar="JSON|@FILE|-", help="What the task needs: JSON, a file, or stdin.")
    ] = "{}",
    title: Annotated[str | None, typer.Option(help="A name for people.")] = None,
    queue: Annotated[str | None, typer.Option(help="The queue to wait in.")] = None,
    delay: Annotated[float | None, typer.Option(metavar="SECONDS", min=0, help="Start no sooner than this.")] = None,
    dedup_key: Annotated[
        str | None, typer.Option("--dedup-key", metavar="KEY", help="Refuse a second unfinished task of this key.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the task until it ends.")] = False,
    timeout: WatchTimeout = WATCH_S,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Create a task, and with --watch follow it until it ends."""
    body: dict[str, Any] = {"type": type_, "payload": read_payload(payload, stdin=sys.stdin.buffer)}
    optional = {"title": title, "queue": queue, "delay_s": delay, "dedup_key": dedup_key}
    body |= {name: value for name, value in optional.items() if value is not None}
    with connect(api) as client:
        task = client.submit(body)
        if watch:
            _watch(client, task.id, timeout_s=timeout, as_json=as_json)
    if as_json:
        print_json(task.to_json())
    else:
        say(f"{task.type} {task.id} is {task.state}. Follow it with: taskflow watch {task.id}")


def watch(task_id: TaskId, timeout: WatchTimeout = WATCH_S, api: Api = None, as_json: AsJson = False) -> None:
    """Follow a task until it ends.

    Progress goes to standard error, the result to standard output. Leaves with 0 if the task is COMPLETED, 1 if it is
    FAILED or CANCELED, 3 if it has not ended in time.
    """
    with connect(api) as client:
        _watch(client, str(task_id), timeout_s=timeout, as_json=as_json)


def list_tasks(
    status: Annotated[TaskStatus | None, typer.Option(case_sensitive=False, help="Only this status.")] = None,
    type_: Annotated[str | None, typer.Option("--type", metavar="TYPE", help="Only this type.")] = None,
    queue: Annotated[str | None, typer.Option(help="Only this queue.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=PAGE_LIMIT, help="How many, newest first.")] = 20,
    all_: Annotated[bool, typer.Option("--all", help="All of them, however many.")] = False,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """List tasks, newest first."""
    filters = {"status": status.value if status else None, "type": type_, "queue": queue}
    with connect(api) as client:
        pages = _pages(client, filters, limit=PAGE_LIMIT if all_ else limit, all_pages=all_)
        if as_json:
            print_json_array(task.to_json() for page in pages for task in page)
        else:
            print_tasks(pages)


def show(task_id: TaskId, api: Api = None, as_json: AsJson = False) -> None:
    """Show one task with its payload, result and error."""
    with connect(api) as client:
        task = client.task(str(task_id))
    if as_json:
        print_json(task.to_json())
    else:
        print_task(task)


def cancel(task_id: TaskId, api: Api = None, as_json: AsJson = False) -> None:
    """Cancel a task; one that runs is asked to stop."""
    with connect(api) as client:
        task = client.cancel(str(task_id))
    if as_json:
        print_json(task.to_json())
    elif task.has_ended:
        say(f"{task.type} {task.id} is {task.state}.")
    else:
        say(f"{task.type} {task.id} was asked to stop. Follow it with: taskflow watch {task.id}")


def retry(task_id: TaskId, api: Api = None, as_json: AsJson = False) -> None:
    """Give a FAILED task a fresh set of attempts."""
    with connect(api) as client:
        task = client.retry(str(task_id))
    if as_json:
        print_json(task.to_json())
    else:
        say(f"{task.type} {task.id} is {task.state}. Follow it with: taskflow watch {task.id}")


def _pages(client: "Client", filters: dict[str, str | None], *, limit: int, all_pages: bool) -> Iterator[list["Task"]]:
    cursor = None
    while True:
        page = client.tasks(limit=limit, filters=filters, cursor=cursor)
        yield page.items
        cursor = page.next_cursor
        if cursor is None or not all_pages:
            return


def _watch(client: "Client", task_id: str, *, timeout_s: float, as_json: bool) -> None:
    from taskflow_cli.display import live_display
    from taskflow_cli.following import follow

    with live_display() as display:
        for task in follow(client, [task_id], timeout_s=timeout_s):
            display.show(task)
    if as_json:
        print_json(task.to_json())
    else:
        print_end(task)
    raise typer.Exit(0 if task.status is TaskStatus.COMPLETED else 1)
