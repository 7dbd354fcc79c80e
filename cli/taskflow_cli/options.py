"""Options that several commands share, and the examples that each command's help ends with."""

from typing import Annotated
from uuid import UUID

import typer
from rich.markup import escape

RUN_PANEL = "Run the platform"
TASK_PANEL = "Work with tasks"
ACCOUNT_PANEL = "Account"
EXAMPLE_ID = "01936f5e-7c1a-7d3e-9c55-0242ac120002"

Api = Annotated[
    str | None,
    typer.Option("--api", metavar="URL", help="Where the API is. Default: TASKFLOW_API_URL, then the platform here."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
TaskId = Annotated[UUID, typer.Argument(metavar="ID", help="The task's id.")]
WatchTimeout = Annotated[
    float, typer.Option("--timeout", metavar="SECONDS", min=0, max=86_400, help="How long to watch at most.")
]


def examples(*lines: str) -> str:
    """Return the end of a command's help: examples, one a line."""
    return "\n".join(["[bold]Examples[/bold]", "", *(f"  {escape(line)}" for line in lines)])
