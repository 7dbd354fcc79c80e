"""The tree of expected failures is complete, drawn and documented."""

import inspect
import re
from collections.abc import Iterator

import pytest

from taskflow_core import errors
from taskflow_core.errors import Invalid, TaskFlowError


def tree(root: type[TaskFlowError]) -> Iterator[type[TaskFlowError]]:
    yield root
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from tree(child)


def drawn() -> dict[str, str | None]:
    """Read the tree out of the module's docstring: the name of each class, and its parent's."""
    parents: dict[str, str | None] = {}
    path: list[str] = []
    for line in inspect.getdoc(errors).splitlines():  # type: ignore[union-attr]
        branch = re.match(r"^([│├└─ ]*)([A-Z]\w+)(?:  |$)", line)
        if branch:
            depth = len(branch[1]) // 4
            path[depth:] = [branch[2]]
            parents[branch[2]] = path[depth - 1] if depth else None
    return parents


ALL = list(tree(TaskFlowError))


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_says_in_its_docstring_when_it_happens(kind: type[TaskFlowError]) -> None:
    assert (kind.__doc__ or "").strip()
    assert kind.__doc__ != (kind.__base__ and kind.__base__.__doc__)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_has_a_code_of_its_own_in_snake_case(kind: type[TaskFlowError]) -> None:
    assert "code" in vars(kind)
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", kind.code)


def test_no_two_errors_share_a_code() -> None:
    codes = [kind.code for kind in ALL]
    assert sorted(codes) == sorted(set(codes))


def test_the_drawing_in_the_docstring_is_the_tree_of_classes() -> None:
    assert drawn() == {kind.__name__: None if kind is TaskFlowError else kind.__bases__[0].__name__ for kind in ALL}


def test_every_error_of_the_module_hangs_in_the_tree() -> None:
    classes = {item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, Exception)}
    assert classes == set(ALL)


def test_an_error_shows_its_message_and_keeps_its_fields() -> None:
    error = Invalid("two fields are wrong", [errors.FieldProblem("payload.to", "give an address")])
    assert str(error) == error.message == "two fields are wrong"
    assert error.fields == (("payload.to", "give an address"),)
