"""Commands that work with tasks: submit, watch, logs, ls, show, cancel, retry, clone, rm."""

import sys
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from taskflow_cli.connection import connect
from taskflow_cli.options import EXAMPLE_ID, TASK_PANEL, Api, AsJson, TaskId, WatchTimeout, examples
from taskflow_cli.output import as_json as to_json
from taskflow_cli.output import print_end, print_json, print_json_array, print_one, print_task, print_tasks, say
from taskflow_cli.payloads import read_moment, read_payload
from taskflow_core.lifecycle import TaskStatus

if TYPE_CHECKING:
    from taskflow_client.models import LogLine, Task
    from taskflow_client.sync import TaskFlow

PAGE_LIMIT = 100
WATCH_S = 600.0

Payload = Annotated[
    str, typer.Option("--payload", metavar="JSON|@FILE|-", help="What the task needs: JSON, a file, or stdin.")
]


def add_commands(app: typer.Typer) -> None:
    """Add this module's commands."""
    lines: dict[str, tuple[Any, tuple[str, ...]]] = {
        "submit": (
            submit,
            (
                """taskflow submit REPORT --payload '{"last": "24h", "format": ["csv", "pdf"]}'""",
                "taskflow submit EMAIL --payload @mail.json --title 'Welcome Ada' --watch",
                "generate-payload | taskflow submit SYNC --payload - --dedup-key prices --json",
            ),
        ),
        "watch": (watch, (f"taskflow watch {EXAMPLE_ID}", f"taskflow watch {EXAMPLE_ID} --timeout 30 --json")),
        "logs": (logs, (f"taskflow logs {EXAMPLE_ID}", f"taskflow logs {EXAMPLE_ID} -f --level warning")),
        "ls": (
            list_tasks,
            (
                "taskflow ls",
                "taskflow ls --status FAILED --type EMAIL --since 2026-11-24T00:00:00Z",
                "taskflow ls --all --json | jq -r '.[].id'",
            ),
        ),
        "show": (show, (f"taskflow show {EXAMPLE_ID}",)),
        "cancel": (cancel, (f"taskflow cancel {EXAMPLE_ID}",)),
        "retry": (retry, (f"taskflow retry {EXAMPLE_ID}",)),
        "clone": (clone, (f"taskflow clone {EXAMPLE_ID}", f"taskflow clone {EXAMPLE_ID} --queue low --json")),
        "rm": (remove, (f"taskflow rm {EXAMPLE_ID}",)),
    }
    for name, (command, shown) in lines.items():
        app.command(name, rich_help_panel=TASK_PANEL, epilog=examples(*shown))(command)


def submit(
    type_: Annotated[str, typer.Argument(metavar="TYPE", help="EMAIL, REPORT, SYNC or an installed plugin's type.")],
    payload: Payload = "{}",
    title: Annotated[str | None, typer.Option(help="A name for people.")] = None,
    queue: Annotated[str | None, typer.Option(help="The queue to wait in.")] = None,
    priority: Annotated[int | None, typer.Option(min=-100, max=100, help="Higher ones go first.")] = None,
    delay: Annotated[float | None, typer.Option(metavar="SECONDS", min=0, help="Start no sooner than this.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A tag; may be given several times.")] = None,
    dedup_key: Annotated[
        str | None, typer.Option("--dedup-key", metavar="KEY", help="Refuse a second unfinished task of this key.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the task until it ends.")] = False,
    timeout: WatchTimeout = WATCH_S,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Create a task, and with --watch follow it until it ends."""
    body = read_payload(payload, stdin=sys.stdin.buffer)
    with connect(api) as client:
        task = client.tasks.create(
            type_, body, title=title, queue=queue, priority=priority, delay_s=delay, tags=tag, dedup_key=dedup_key
        )
        if watch:
            _watch(client, task.id, timeout_s=timeout, as_json=as_json)
    print_one(task, _stands, as_json=as_json)


def watch(task_id: TaskId, timeout: WatchTimeout = WATCH_S, api: Api = None, as_json: AsJson = False) -> None:
    """Follow a task live until it ends: its progress and what its handler logs.

    Those go to standard error, the result to standard output. Leaves with 0 if the task is COMPLETED, 1 if it is FAILED
    or CANCELED, 3 if it has not ended in time.
    """
    with connect(api) as client:
        _watch(client, str(task_id), timeout_s=timeout, as_json=as_json)


def logs(
    task_id: TaskId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the task ends.")] = False,
    level: Annotated[
        str | None, typer.Option(metavar="LEVEL", help="This level and those above: debug, info, warning, error.")
    ] = None,
    attempt: Annotated[int | None, typer.Option(min=1, help="Only this attempt.")] = None,
    timeout: WatchTimeout = WATCH_S,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Print what a task's handler logged, with -f as it happens; with --json one object a line."""
    from taskflow_cli.display import line_of

    with connect(api) as client:
        if follow:
            lines = client.tasks.logs(task_id, level=level, attempt=attempt, timeout_s=timeout)
        else:
            lines = _past_lines(client, task_id, level=level, attempt=attempt)
        for line in lines:
            say(to_json(line.to_json(), indent=None) if as_json else line_of(line))


def list_tasks(
    status: Annotated[
        list[TaskStatus] | None, typer.Option(case_sensitive=False, help="Only this status; several times: any.")
    ] = None,
    type_: Annotated[
        list[str] | None, typer.Option("--type", metavar="TYPE", help="Only this type; several times: any.")
    ] = None,
    queue: Annotated[str | None, typer.Option(help="Only this queue.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only with this tag.")] = None,
    search: Annotated[
        str | None, typer.Option("--search", metavar="WORDS", help="Words of the title, dedup key or error.")
    ] = None,
    since: Annotated[str | None, typer.Option(metavar="TIME", help="Created from then on (ISO 8601).")] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Created before then.")] = None,
    error_code: Annotated[str | None, typer.Option("--error-code", metavar="CODE", help="Failed with this.")] = None,
    schedule: Annotated[UUID | None, typer.Option(metavar="ID", help="Made by this schedule.")] = None,
    owner: Annotated[UUID | None, typer.Option(metavar="ID", help="Of this user; for OPERATOR and ADMIN.")] = None,
    oldest: Annotated[bool, typer.Option("--oldest", help="Oldest first.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=PAGE_LIMIT, help="How many, newest first.")] = 20,
    all_: Annotated[bool, typer.Option("--all", help="All of them, however many.")] = False,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """List tasks, newest first."""
    with connect(api) as client:
        found = client.tasks.list(
            status=[one.value for one in status or []] or None,
            type=type_,
            queue=queue,
            tag=tag,
            q=search,
            created_from=read_moment(since, "--since"),
            created_to=read_moment(until, "--until"),
            error_code=error_code,
            schedule_id=schedule,
            owner_id=owner,
            order="oldest" if oldest else None,
            limit=PAGE_LIMIT if all_ else limit,
        )
        wanted = found if all_ else islice(found, limit)
        if as_json:
            print_json_array(task.to_json() for task in wanted)
        else:
            print_tasks(_pages(wanted))


def show(task_id: TaskId, api: Api = None, as_json: AsJson = False) -> None:
    """Show one task with its payload, result and error."""
    with connect(api) as client:
        task = client.tasks.get(task_id)
    if as_json:
        print_json(task.to_json())
    else:
        print_task(task)


def cancel(task_id: TaskId, api: Api = None, as_json: AsJson = False) -> None:
    """Cancel a task; one that runs is asked to stop."""
    with connect(api) as client:
        task = client.tasks.cancel(task_id)
    print_one(task, _canceled, as_json=as_json)


def retry(task_id: TaskId, api: Api = None, as_json: AsJson = False) -> None:
    """Give a FAILED task a fresh set of attempts."""
    with connect(api) as client:
        task = client.tasks.retry(task_id)
    print_one(task, _stands, as_json=as_json)


def clone(
    task_id: TaskId,
    queue: Annotated[str | None, typer.Option(help="Another queue.")] = None,
    title: Annotated[str | None, typer.Option(help="Another title.")] = None,
    delay: Annotated[float | None, typer.Option(metavar="SECONDS", min=0, help="Start no sooner than this.")] = None,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Create a task like another one."""
    with connect(api) as client:
        task = client.tasks.clone(task_id, queue=queue, title=title, delay_s=delay)
    print_one(task, _stands, as_json=as_json)


def remove(task_id: TaskId, api: Api = None, as_json: AsJson = False) -> None:
    """Delete a finished task with its history, logs and files."""
    with connect(api) as client:
        client.tasks.delete(task_id)
    if as_json:
        print_json({"deleted": str(task_id)})
    else:
        say(f"Task {task_id} is deleted.")


def _pages(found: "Iterator[Task]") -> "Iterator[list[Task]]":
    while page := list(islice(found, PAGE_LIMIT)):
        yield page


def _past_lines(client: "TaskFlow", task_id: TaskId, **chosen: Any) -> Iterator["LogLine"]:
    after = None
    while True:
        stretch = client.tasks.past_logs(task_id, after=after, **chosen)
        yield from stretch.items
        after = stretch.next_after
        if not stretch.more:
            return


def _stands(task: "Task") -> str:
    return f"{task.type} {task.id} is {task.state}. Follow it with: taskflow watch {task.id}"


def _canceled(task: "Task") -> str:
    if task.has_ended:
        return f"{task.type} {task.id} is {task.state}."
    return f"{task.type} {task.id} was asked to stop. Follow it with: taskflow watch {task.id}"


def _watch(client: "TaskFlow", task_id: str, *, timeout_s: float, as_json: bool) -> None:
    from taskflow_cli.display import live_display
    from taskflow_cli.following import follow_live

    with live_display() as display:
        for task in follow_live(client, task_id, timeout_s=timeout_s, print_line=display.print_line):
            display.show(task)
    if as_json:
        print_json(task.to_json())
    else:
        print_end(task)
    raise typer.Exit(0 if task.status == "COMPLETED" else 1)
