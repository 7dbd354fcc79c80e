"""Progress of tasks as it happens: bars on a terminal, a line for each change elsewhere."""

import sys
from types import TracebackType
from typing import Any

from rich.progress import BarColumn, Progress, ProgressColumn, TaskID, TextColumn
from rich.progress import Task as Bar
from rich.text import Text

from taskflow_cli.failures import printable
from taskflow_cli.output import STYLES, console, moment
from taskflow_client.models import LogLine, Task


class StateColumn(ProgressColumn):
    """A task's state in its colour."""

    def render(self, task: Bar) -> Text:
        """Return the state, padded."""
        state = str(task.fields["state"])
        return Text(f"{state:<9}", style=STYLES.get(state, ""))


class Bars:
    """A bar for each task on standard error, a terminal."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.fields[type]}", style="bold", markup=False),
            TextColumn("{task.fields[id]}", style="dim", markup=False),
            StateColumn(),
            BarColumn(bar_width=14, finished_style="green"),
            TextColumn("{task.fields[note]}", markup=False),
            console=console(stderr=True),
        )
        self._rows: dict[str, TaskID] = {}

    def __enter__(self) -> "Bars":
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._progress.stop()

    def show(self, task: Task) -> None:
        """Show how the task stands now."""
        done, total, note = standing(task)
        fields: dict[str, Any] = {
            "type": printable(task.type),
            "id": task.id,
            "state": task.state,
            "note": note,
        }
        row = self._rows.get(task.id)
        if row is None:
            row = self._rows[task.id] = self._progress.add_task("", total=total, **fields)
        self._progress.update(row, total=total, completed=done, **fields)
        if task.has_ended:
            self._progress.stop_task(row)

    def print_line(self, line: LogLine) -> None:
        """Show a line that the task's handler logged, above the bars."""
        self._progress.console.print(line_of(line), markup=False, highlight=False)


class Lines:
    """A line on standard error whenever a task's state or progress changed."""

    def __init__(self) -> None:
        self._last: dict[str, str] = {}

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        return

    def show(self, task: Task) -> None:
        """Say how the task stands now, if that changed."""
        done, total, note = standing(task)
        percent = f"{done / total:4.0%}" if total else "   -"
        line = printable(f"{task.type:<6} {task.id} {task.state:<9} {percent} {note}").rstrip()
        if self._last.get(task.id) != line:
            self._last[task.id] = line
            _print(line)

    def print_line(self, line: LogLine) -> None:
        """Show a line that the task's handler logged."""
        _print(line_of(line))


def live_display() -> Bars | Lines:
    """Return the display that suits standard error; use it in a `with`."""
    return Bars() if sys.stderr.isatty() else Lines()


def line_of(line: LogLine) -> str:
    """Return a handler's line: when, how loud, what, and its fields."""
    fields = " ".join(f"{name}={value}" for name, value in (line.fields or {}).items())
    return printable(f"{moment(line.at)} {line.level:<7} {line.message} {fields}").rstrip()


def standing(task: Task) -> tuple[float, float | None, str]:
    """Return how much is done, of how much (None while unknown), and a word on it."""
    if task.status == "COMPLETED":
        return 1.0, 1.0, ""
    done, total = (task.progress.done, task.progress.total) if task.progress else (0, None)
    if task.has_ended:
        return float(done), float(total or 1), printable(_reason(task))
    note = task.progress.message if task.progress else ""
    return float(done), float(total) if total else None, printable(note)


def _print(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _reason(task: Task) -> str:
    error = task.error or {}
    return str(error.get("message") or error.get("code") or "")
