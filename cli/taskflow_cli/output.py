"""What commands print: results to standard output, progress and failures to standard error."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

from taskflow_cli.failures import printable

if TYPE_CHECKING:
    from rich.console import Console

    from taskflow_client.models import Task, Wire

W = TypeVar("W", bound="Wire")

STYLES = {
    "PENDING": "cyan",
    "SCHEDULED": "cyan",
    "RETRYING": "yellow",
    "RUNNING": "blue",
    "COMPLETED": "green",
    "FAILED": "red",
    "CANCELED": "magenta",
}
COLUMNS = {"ID": 36, "TYPE": 6, "STATE": 9, "AGE": 4, "QUEUE": 7}  # least widths: pages are printed one by one
WIDTH_OF_FILES = 10_000  # into a file or a pipe nothing is cut


def console(*, stderr: bool = False) -> "Console":
    """Return a console that takes text literally and cuts nothing when its output is no terminal."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else WIDTH_OF_FILES
    return Console(file=stream, markup=False, highlight=False, emoji=False, width=width, soft_wrap=False)


def print_json(document: Any) -> None:
    """Print a document as indented JSON."""
    sys.stdout.write(as_json(document) + "\n")


def as_json(document: Any, *, indent: int | None = 2) -> str:
    """Return a document as JSON, indented or on one line."""
    return json.dumps(document, indent=indent, ensure_ascii=False)


def print_json_array(documents: Iterable[Any]) -> None:
    """Print documents as one JSON array, each as soon as it is there."""
    separator = "["
    for document in documents:
        sys.stdout.write(f"{separator}\n{as_json(document)}")
        separator = ","
    sys.stdout.write("[]\n" if separator == "[" else "\n]\n")


def say(text: str) -> None:
    """Print lines for people now, control characters removed."""
    lines = [printable(line) for line in text.split("\n")]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def print_tasks(pages: Iterable[list["Task"]]) -> None:
    """Print pages of tasks as one table, each page as soon as it is there."""
    from rich.table import Table
    from rich.text import Text

    out = console()
    first = next(iter_pages := iter(pages), [])
    for number, tasks in enumerate(chain([first], iter_pages)):
        table = Table(box=None, show_header=number == 0, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
        for heading, width in COLUMNS.items():
            table.add_column(heading, no_wrap=True, min_width=width)
        table.add_column("TITLE", no_wrap=True, overflow="ellipsis")
        for task in tasks:
            table.add_row(
                task.id,
                printable(task.type),
                Text(task.state, style=STYLES.get(task.state, "")),
                age(task.created_at, now=datetime.now(UTC)),
                printable(task.queue),
                Text(printable(task.title)),
            )
        out.print(table)


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows as a table, control characters removed; the last column is cut where a terminal is too narrow."""
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for heading in headings:
        table.add_column(heading, no_wrap=True, overflow="ellipsis" if heading == headings[-1] else "fold")
    for row in rows:
        table.add_row(*map(printable, row))
    console().print(table)


def print_items(
    items: Iterable[W], headings: Sequence[str], row: Callable[[W], Sequence[str]], *, as_json: bool
) -> None:
    """Print what the API listed: as a table, or as one JSON array."""
    if as_json:
        print_json_array(item.to_json() for item in items)
    else:
        print_table(headings, map(row, items))


def print_one(item: W, text: Callable[[W], str], *, as_json: bool) -> None:
    """Print what the API answered: in words, or as JSON."""
    if as_json:
        print_json(item.to_json())
    else:
        say(text(item))


def print_task(task: "Task") -> None:
    """Print everything worth knowing about one task."""
    for name, value in _lines_of(task):
        say(f"{name:<9} {value}")
    say(f"payload\n{as_json(task.payload)}")
    _print_outcome(task)


def print_end(task: "Task") -> None:
    """Print how a task ended and what came of it."""
    say(f"{task.type} {task.id} is {task.state}.")
    _print_outcome(task)


def _print_outcome(task: "Task") -> None:
    if task.result is not None:
        say(f"result\n{as_json(task.result)}")
    if task.error is not None:
        say(f"error     {task.error.get('code')}: {task.error.get('message')}")
        more = {name: value for name, value in task.error.items() if name not in {"code", "message", "type"}}
        for name, value in more.items():
            say(f"{name}\n{value if isinstance(value, str) else as_json(value)}")


def _lines_of(task: "Task") -> Iterator[tuple[str, str]]:
    yield "id", task.id
    yield "type", task.type
    if task.title:
        yield "title", task.title
    asked = " (asked to stop)" if task.cancel_requested and not task.has_ended else ""
    yield "state", task.state + asked
    yield "queue", task.queue
    yield "attempt", f"{task.attempt} of {task.max_attempts}"
    if task.progress and not task.has_ended:
        total = "?" if task.progress.total is None else f"{task.progress.total:g}"
        yield "progress", f"{task.progress.done:g} of {total} {task.progress.message}"
    if task.tags:
        yield "tags", ", ".join(task.tags)
    for name, at in (("created", task.created_at), ("started", task.started_at), ("finished", task.finished_at)):
        if at:
            yield name, moment(at)


def moment(at: datetime | None, *, never: str = "never") -> str:
    """Return a moment as ISO 8601 in UTC, to the second."""
    return never if at is None else at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def age(at: datetime | None, *, now: datetime, never: str = "never") -> str:
    """Return how long before `now` a moment was, in its largest whole unit."""
    return never if at is None else span((now - at).total_seconds())


def span(seconds: float) -> str:
    """Return a time in its largest whole unit."""
    seconds = max(0, int(seconds))
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
