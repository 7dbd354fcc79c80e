"""Values from the command line: a task's payload (JSON itself, @file, or - for standard input), and moments."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from taskflow_cli.failures import BadInput

MAX_BYTES = 16 * 1024 * 1024
HINT = """give a JSON object: --payload '{"key": "value"}', --payload @file.json, or - for standard input"""


def read_payload(source: str, *, stdin: BinaryIO) -> dict[str, Any]:
    """Return the JSON object that `source` holds or names.

    Raises:
        BadInput: it cannot be read, is over 16 MiB, or is not a JSON object.
    """
    name, raw = _read(source, stdin)
    if len(raw) > MAX_BYTES:
        raise BadInput(f"--payload: {name} is over {MAX_BYTES // 2**20} MiB")
    try:
        document = json.loads(raw, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"--payload: {name} is not JSON: {error}", hint=HINT) from None
    if not isinstance(document, dict):
        raise BadInput(f"--payload: {name} is not a JSON object", hint=HINT)
    return document


def read_moment(text: str | None, option: str) -> datetime | None:
    """Return an ISO 8601 moment; one without a zone is by this machine's clock.

    Raises:
        BadInput: it is none; names the option.
    """
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise BadInput(
            f"{option}: {text!r} is no time", hint="it looks like 2026-11-24T09:30:00Z or 2026-11-24"
        ) from None


def _read(source: str, stdin: BinaryIO) -> tuple[str, bytes]:
    if source == "-":
        return "standard input", stdin.read(MAX_BYTES + 1)
    if not source.startswith("@"):
        return "the value", source.encode("utf-8", "surrogateescape")
    path = Path(source[1:])
    try:
        with path.open("rb") as file:
            return str(path), file.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadInput(f"--payload: cannot read {path}: {error.strerror}") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")
