"""What pydantic and the registry find wrong, as our errors: the API says it to clients, the scheduler to owners."""

from collections.abc import Sequence
from typing import Any

import orjson
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from taskflow_core.errors import FieldProblem, Invalid, TooLarge, UnknownType
from taskflow_core.handlers import Registry, TaskType

MAX_FIELDS = 50


def invalid(errors: Sequence[Any], *, skip: int = 0, prefix: tuple[str, ...] = ()) -> Invalid:
    """Return pydantic's errors as ours: each field by its dotted path, without the value that was sent.

    `skip` leaves out the first parts of each location ("body", "query"), `prefix` goes before them.
    """
    problems = [_field_problem(error, skip, prefix) for error in errors[:MAX_FIELDS]]
    names = ", ".join(sorted({problem.field for problem in problems if problem.field}))
    return Invalid(f"these fields are not valid: {names}" if names else "the body is not valid", problems)


def known_type(registry: Registry, name: str, *, prefix: tuple[str, ...] = ()) -> TaskType:
    """Return the type of that name; `prefix` is where the request names it.

    Raises:
        UnknownType: it is not installed.
    """
    kind = registry.get(name)
    if kind is None:
        known = ", ".join(registry.names())
        field = ".".join((*prefix, "type"))
        raise UnknownType("no such task type is installed", [FieldProblem(field, f"must be one of: {known}")])
    return kind


def checked_payload(
    kind: TaskType, raw: dict[str, Any], *, prefix: tuple[str, ...] = (), max_bytes: int | None = None
) -> dict[str, Any]:
    """Return the payload as its type's model reads it, JSON-compatible; `prefix` is where the request holds it.

    Raises:
        Invalid: a field is wrong; names it.
        TooLarge: its JSON has more than `max_bytes`.
    """
    path = (*prefix, "payload")
    try:
        payload = kind.payload.model_validate(raw).model_dump(mode="json")
        size = len(orjson.dumps(payload))
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_input=False), prefix=path) from None
    except TypeError as error:  # an integer that its model read out of a float beyond 64 bits
        raise Invalid("the payload cannot be stored", [FieldProblem(".".join(path), str(error))]) from None
    if max_bytes is not None and size > max_bytes:
        raise TooLarge(f"a payload in a batch may hold at most {max_bytes} bytes")
    return payload


def _field_problem(error: ErrorDetails, skip: int, prefix: tuple[str, ...]) -> FieldProblem:
    path = (*prefix, *error["loc"][skip:])
    return FieldProblem(".".join(str(part) for part in path), str(error["msg"]).removeprefix("Value error, "))
