"""Commands that work with schedules: schedules ls, add, pause, resume, rm."""

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from taskflow_cli.connection import connect
from taskflow_cli.options import EXAMPLE_ID, TASK_PANEL, Api, AsJson, examples
from taskflow_cli.output import age, moment, print_items, print_json, say
from taskflow_cli.payloads import read_payload
from taskflow_core.cron import Misfire

if TYPE_CHECKING:
    from taskflow_client.models import Schedule

ScheduleId = Annotated[UUID, typer.Argument(metavar="ID", help="The schedule's id.")]


def add_commands(app: typer.Typer) -> None:
    """Add this module's commands."""
    group = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode="rich",
        help="Create tasks by the clock.",
        epilog=examples(
            "taskflow schedules add daily REPORT --cron '0 6 * * *' --timezone Europe/Berlin", "taskflow schedules ls"
        ),
    )
    group.command("ls", epilog=examples("taskflow schedules ls", "taskflow schedules ls --json"))(list_schedules)
    group.command(
        epilog=examples(
            """taskflow schedules add daily REPORT --cron '0 6 * * *' --payload '{"last": "24h"}'""",
            "taskflow schedules add prices SYNC --cron '*/5 * * * *' --misfire fire_once --payload @sync.json",
        )
    )(add)
    group.command(epilog=examples(f"taskflow schedules pause {EXAMPLE_ID}"))(pause)
    group.command(epilog=examples(f"taskflow schedules resume {EXAMPLE_ID}"))(resume)
    group.command("rm", epilog=examples(f"taskflow schedules rm {EXAMPLE_ID}"))(remove)
    app.add_typer(group, name="schedules", rich_help_panel=TASK_PANEL)


def list_schedules(api: Api = None, as_json: AsJson = False) -> None:
    """List your schedules, newest first."""
    with connect(api) as client:
        print_items(
            client.schedules.list(), ("ID", "CRON", "ZONE", "TYPE", "NEXT", "LAST", "NAME"), _row, as_json=as_json
        )


def add(
    name: Annotated[str, typer.Argument(help="A name for people.")],
    type_: Annotated[str, typer.Argument(metavar="TYPE", help="The type of the tasks.")],
    cron: Annotated[str, typer.Option(metavar="EXPRESSION", help="Minute, hour, day of month, month, day of week.")],
    timezone: Annotated[str, typer.Option(metavar="ZONE", help="Whose clock it goes by.")] = "UTC",
    misfire: Annotated[
        Misfire, typer.Option(help="What becomes of firings that were missed: nothing, or one task for all.")
    ] = Misfire.SKIP,
    payload: Annotated[
        str, typer.Option("--payload", metavar="JSON|@FILE|-", help="What each task needs: JSON, a file, or stdin.")
    ] = "{}",
    title: Annotated[str | None, typer.Option(help="A title for each task.")] = None,
    queue: Annotated[str | None, typer.Option(help="The queue they wait in.")] = None,
    dedup_key: Annotated[
        str | None, typer.Option("--dedup-key", metavar="KEY", help="Skip a firing while a task of this key goes on.")
    ] = None,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Make a schedule and show its next firings."""
    task: dict[str, Any] = {"type": type_, "payload": read_payload(payload, stdin=sys.stdin.buffer)}
    optional = {"title": title, "queue": queue, "dedup_key": dedup_key}
    task |= {name: value for name, value in optional.items() if value is not None}
    with connect(api) as client:
        schedule = client.schedules.create(name, cron, task, timezone=timezone, misfire=misfire.value)
    _show(schedule, as_json=as_json)


def pause(schedule_id: ScheduleId, api: Api = None, as_json: AsJson = False) -> None:
    """Stop a schedule from firing."""
    with connect(api) as client:
        schedule = client.schedules.pause(schedule_id)
    _show(schedule, as_json=as_json)


def resume(schedule_id: ScheduleId, api: Api = None, as_json: AsJson = False) -> None:
    """Let a schedule fire again, from its next time on."""
    with connect(api) as client:
        schedule = client.schedules.resume(schedule_id)
    _show(schedule, as_json=as_json)


def remove(schedule_id: ScheduleId, api: Api = None, as_json: AsJson = False) -> None:
    """Delete a schedule; the tasks that it made stay."""
    with connect(api) as client:
        client.schedules.delete(schedule_id)
    if as_json:
        print_json({"deleted": str(schedule_id)})
    else:
        say(f"Schedule {schedule_id} is deleted.")


def _row(schedule: "Schedule") -> tuple[str, ...]:
    last = age(schedule.last_fire_at, now=datetime.now(UTC))
    upcoming = "paused" if schedule.paused else moment(schedule.next_fire_at)
    type_ = str(schedule.task.get("type"))
    return (schedule.id, schedule.cron, schedule.timezone, type_, upcoming, last, schedule.name)


def _show(schedule: "Schedule", *, as_json: bool) -> None:
    if as_json:
        print_json(schedule.to_json())
        return
    say(f"Schedule {schedule.id} ({schedule.name}) is {'paused' if schedule.paused else 'active'}.")
    if schedule.paused_reason:
        say(f"  because {schedule.paused_reason}")
    for at in schedule.next_firings or []:
        say(f"  fires at {moment(at)}")
