"""Commands that work with queues: queues ls, pause, resume."""

from typing import TYPE_CHECKING, Annotated

import typer

from taskflow_cli.connection import connect
from taskflow_cli.options import TASK_PANEL, Api, AsJson, examples
from taskflow_cli.output import print_items, print_one, span

if TYPE_CHECKING:
    from taskflow_client.models import Queue

COUNTED = 10_000  # the API counts no further

QueueName = Annotated[str, typer.Argument(metavar="NAME", help="The queue's name.")]


def add_commands(app: typer.Typer) -> None:
    """Add this module's commands."""
    group = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode="rich",
        help="See how queues stand; pause and resume them.",
        epilog=examples("taskflow queues ls", "taskflow queues pause reports"),
    )
    group.command("ls", epilog=examples("taskflow queues ls", "taskflow queues ls --json"))(list_queues)
    group.command(epilog=examples("taskflow queues pause reports"))(pause)
    group.command(epilog=examples("taskflow queues resume reports"))(resume)
    app.add_typer(group, name="queues", rich_help_panel=TASK_PANEL)


def list_queues(api: Api = None, as_json: AsJson = False) -> None:
    """List the queues: how many tasks wait and run, and for how long the first has been waiting."""
    with connect(api) as client:
        found = client.queues.list()
    print_items(found, ("NAME", "STATE", "WAITING", "RUNNING", "OLDEST"), _row, as_json=as_json)


def pause(name: QueueName, api: Api = None, as_json: AsJson = False) -> None:
    """Let no worker take from a queue; running tasks go on. For OPERATOR and ADMIN."""
    with connect(api) as client:
        queue = client.queues.pause(name)
    print_one(queue, _told, as_json=as_json)


def resume(name: QueueName, api: Api = None, as_json: AsJson = False) -> None:
    """Let workers take from a queue again. For OPERATOR and ADMIN."""
    with connect(api) as client:
        queue = client.queues.resume(name)
    print_one(queue, _told, as_json=as_json)


def _row(queue: "Queue") -> tuple[str, ...]:
    waiting = f"{queue.waiting}{'+' if queue.waiting >= COUNTED else ''}"
    oldest = "-" if queue.oldest_age_s is None else span(queue.oldest_age_s)
    return (queue.name, "paused" if queue.paused else "open", waiting, str(queue.running), oldest)


def _told(queue: "Queue") -> str:
    return f"Queue {queue.name} is {'paused' if queue.paused else 'open'}; {queue.waiting} waiting."
