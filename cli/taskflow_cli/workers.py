"""Commands that show the platform at work: workers ls, workers show, stats."""

from typing import TYPE_CHECKING, Annotated

import typer

from taskflow_cli.connection import connect
from taskflow_cli.options import TASK_PANEL, Api, AsJson, examples
from taskflow_cli.output import moment, print_items, print_json, print_one, print_table, say, span

if TYPE_CHECKING:
    from taskflow_client.models import Stats, Worker


def add_commands(app: typer.Typer) -> None:
    """Add this module's commands."""
    group = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode="rich",
        help="See the processes that run tasks. For OPERATOR and ADMIN.",
        epilog=examples("taskflow workers ls"),
    )
    group.command("ls", epilog=examples("taskflow workers ls", "taskflow workers ls --json"))(list_workers)
    group.command(epilog=examples("taskflow workers show worker-7d9f-1"))(show)
    app.add_typer(group, name="workers", rich_help_panel=TASK_PANEL)
    app.command(rich_help_panel=TASK_PANEL, epilog=examples("taskflow stats", "taskflow stats --hours 24 --json"))(
        stats
    )


def list_workers(api: Api = None, as_json: AsJson = False) -> None:
    """List the workers: how busy they are, and when they were last heard of."""
    headings = ("ID", "STATE", "BUSY", "SLOTS", "HEARD", "VERSION", "QUEUES")
    with connect(api) as client:
        print_items(client.workers.list(), headings, _row, as_json=as_json)


def show(
    worker_id: Annotated[str, typer.Argument(metavar="ID", help="The worker's id.")],
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Show one worker and the tasks that it runs."""
    with connect(api) as client:
        worker = client.workers.get(worker_id)
    print_one(worker, _told, as_json=as_json)


def stats(
    hours: Annotated[float, typer.Option(min=1 / 60, max=24, help="Over how many hours.")] = 1.0,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Show figures about your tasks, for OPERATOR and ADMIN about all."""
    with connect(api) as client:
        figures = client.platform.stats(window_s=round(hours * 3600))
    if as_json:
        print_json(figures.to_json())
    else:
        _print(figures)


def _row(worker: "Worker") -> tuple[str, ...]:
    heard = span(worker.heartbeat_age_s)
    busy = (str(worker.busy), str(worker.slots))
    return (worker.id, worker.state, *busy, heard, worker.version, ",".join(worker.queues))


def _told(worker: "Worker") -> str:
    lines = [f"{worker.id} is {worker.state}; {worker.busy} of {worker.slots} slots busy."]
    lines += [f"  {task.get('type')} {task.get('id')} attempt {task.get('attempt')}" for task in worker.tasks or []]
    return "\n".join(lines)


def _print(figures: "Stats") -> None:
    say(f"from {moment(figures.start)} to {moment(figures.to)}")
    say("  ".join(f"{status} {count}" for status, count in figures.totals.items()))
    for name, times in (("wait", figures.wait_s), ("run", figures.run_s)):
        shown = [f"{which} {'-' if value is None else f'{value:.3g} s'}" for which, value in times.items()]
        say(f"{name:<5} {'  '.join(shown)}")
    columns = ("type", "total", "pending", "running", "completed", "failed", "canceled")
    rows = [[str(item.get(name, "")) for name in columns] for item in figures.types]
    print_table([name.upper() for name in columns], rows)
    if figures.failures:
        codes = [(str(item.get("total")), str(item.get("code"))) for item in figures.failures]
        print_table(("FAILED", "CODE"), codes)
