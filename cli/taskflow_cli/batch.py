"""The command batch: many tasks from a file of JSON lines, in chunks that are each accepted once."""

import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from taskflow_cli.connection import connect
from taskflow_cli.failures import BadInput, Failure
from taskflow_cli.options import TASK_PANEL, Api, AsJson, examples
from taskflow_cli.output import console, print_json, say

if TYPE_CHECKING:
    from taskflow_client.models import BatchItem

CHUNK_ITEMS = 1000
CHUNK_BYTES = 4 * 1024 * 1024
LINE_BYTES = 1024 * 1024
SHOWN_REFUSALS = 20


class Chunk(NamedTuple):
    """Some lines of the file: what they ask for, the line each is on, and how many bytes they are."""

    items: list[dict[str, Any]]
    lines: list[int]
    size: int

    def plus(self, item: dict[str, Any], line: int, size: int) -> "Chunk":
        """Return the chunk with one more line; the lists are the same."""
        self.items.append(item)
        self.lines.append(line)
        return self._replace(size=self.size + size)


class Refusal(NamedTuple):
    """A line that made no task, and why."""

    line: int
    reason: str


def add_commands(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command(
        rich_help_panel=TASK_PANEL,
        epilog=examples(
            """echo '{"type": "REPORT", "payload": {"last": "24h"}}' > tasks.jsonl""",
            "taskflow batch tasks.jsonl",
            "generate | taskflow batch - --run 2026-11-24 --json",
        ),
    )(batch)


def batch(
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="A file with a task in JSON on each line, or stdin.")],
    run: Annotated[
        str, typer.Option(metavar="NAME", help="A name of this run: the same file under another name is made anew.")
    ] = "",
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Create the tasks of a file, 1,000 at a time.

    A run that was cut can be started again: for 24 hours the same chunk under the same --run makes no second task.
    Leaves with 1 if a line was refused; the others are made.
    """
    created, refusals = 0, list[Refusal]()
    with ExitStack() as stack:
        source, size = _open(stack, file)
        client = stack.enter_context(connect(api))
        advance = stack.enter_context(_Bar(size))
        for number, chunk in enumerate(chunks(source)):
            done = client.tasks.batch(chunk.items, idempotency_key=key_of(chunk, run=run, number=number))
            created += done.created
            refusals += _refusals(chunk, done.items)
            advance.by(chunk.size, created)
    if as_json:
        print_json({"created": created, "refused": [refusal._asdict() for refusal in refusals]})
    else:
        say(f"Created {created} tasks; {len(refusals)} lines were refused.")
    if refusals:
        more = [f"... and {len(refusals) - SHOWN_REFUSALS} more"] if len(refusals) > SHOWN_REFUSALS else []
        shown = [f"line {refusal.line}: {refusal.reason}" for refusal in refusals[:SHOWN_REFUSALS]]
        raise Failure("some lines made no task", details=[*shown, *more])


def chunks(source: IO[bytes]) -> Iterator[Chunk]:
    """Yield the lines of a file in chunks of at most CHUNK_ITEMS lines and about CHUNK_BYTES; empty ones are skipped.

    Raises:
        BadInput: a line is no JSON object, or over LINE_BYTES.
    """
    chunk = Chunk([], [], 0)
    number = 0
    while line := source.readline(LINE_BYTES + 1):
        number += 1
        if line.strip():
            chunk = chunk.plus(_item(line, number), number, len(line))
        if len(chunk.items) >= CHUNK_ITEMS or chunk.size >= CHUNK_BYTES:
            yield chunk
            chunk = Chunk([], [], 0)
    if chunk.items:
        yield chunk


def key_of(chunk: Chunk, *, run: str, number: int) -> str:
    """Return the Idempotency-Key of a chunk: the same for the same content at the same place of the same run."""
    content = json.dumps([run, number, chunk.items], sort_keys=True)
    return f"batch-{hashlib.sha256(content.encode()).hexdigest()[:48]}"


def _item(line: bytes, number: int) -> dict[str, Any]:
    if len(line) > LINE_BYTES:
        raise BadInput(f"line {number} is over {LINE_BYTES // 1024} KiB")
    try:
        item = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadInput(
            f"line {number} is not JSON: {error}", hint="each line is a task, as POST /tasks takes it"
        ) from None
    if not isinstance(item, dict):
        raise BadInput(f"line {number} is not a JSON object", hint="each line is a task, as POST /tasks takes it")
    return item


def _open(stack: ExitStack, name: str) -> tuple[IO[bytes], int | None]:
    if name == "-":
        return sys.stdin.buffer, None
    path = Path(name)
    try:
        return stack.enter_context(path.open("rb")), path.stat().st_size
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from None


def _refusals(chunk: Chunk, results: "list[BatchItem]") -> list[Refusal]:
    paired = zip(chunk.lines, results, strict=True)
    return [Refusal(line, _reason(result)) for line, result in paired if result.task is None]


def _reason(result: "BatchItem") -> str:
    problem = result.problem or {}
    errors = problem.get("errors") or []
    fields = [f"{error.get('field')}: {error.get('message')}" for error in errors if isinstance(error, dict)]
    return "; ".join(fields) or str(problem.get("detail") or f"status {result.status}")


class _Bar:
    """How much of the file is done, on standard error, if that is a terminal."""

    def __init__(self, size: int | None) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.fields[created]} tasks", markup=False), BarColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=console(stderr=True), disable=not sys.stderr.isatty())
        self._row = self._progress.add_task("", total=size, created=0)

    def __enter__(self) -> "_Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def by(self, size: int, created: int) -> None:
        self._progress.update(self._row, advance=size, created=created)
