"""What ends a command early, one tree; `main` prints it to standard error and leaves with its exit code.

Failure
├── BadInput         2  an option, file or variable is wrong
├── Unreachable      2  no platform answers at the address
├── Refused          1  the API said no
└── DeadlinePassed   3  what was waited for did not happen in time
"""

from collections.abc import Sequence
from typing import Any, ClassVar


class Failure(Exception):
    """Root: a sentence, details of one line each, and what to do about it."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, details: Sequence[str] = (), hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.details = tuple(details)
        self.hint = hint


class BadInput(Failure):
    """An option, a file or an environment variable cannot be used as it is."""

    exit_code = 2


class Unreachable(Failure):
    """Nothing that speaks for a platform answers at the address."""

    exit_code = 2


class Refused(Failure):
    """The API answered with a problem (RFC 9457); `status` is its HTTP status."""

    def __init__(self, problem: dict[str, Any], *, status: int, hint: str = "") -> None:
        code = str(problem.get("code") or "")
        title = str(problem.get("title") or "the request failed").rstrip(".")
        super().__init__(
            f"{title} ({status}{', ' + code if code else ''})", details=_details_of(problem, title), hint=hint
        )
        self.status = status
        self.code = code


class DeadlinePassed(Failure):
    """What the command waited for did not happen in the time given."""

    exit_code = 3


def render(failure: Failure) -> str:
    """Return the failure as a block of text for a terminal, control characters removed."""
    lines = [f"taskflow: {failure.message}"]
    lines += [f"  {detail}" for detail in failure.details]
    lines += [f"  -> {failure.hint}"] if failure.hint else []
    return "\n".join(printable(line) for line in lines)


def printable(text: str) -> str:
    """Return the text without control characters: what others wrote must not steer this terminal."""
    return "".join(char if char.isprintable() else " " for char in text)


def _details_of(problem: dict[str, Any], title: str) -> list[str]:
    lines = []
    detail = str(problem.get("detail") or "")
    if detail.rstrip(".") not in {"", title}:
        lines.append(detail)
    errors = problem.get("errors")
    lines += [
        f"- {error.get('field') or 'request'}: {error.get('message', 'is wrong')}"
        for error in (errors if isinstance(errors, list) else [])
        if isinstance(error, dict)
    ]
    if problem.get("request_id"):
        lines.append(f"request id {problem['request_id']}")
    return lines
