"""What makes a function a task type, and how the types of installed packages are found."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from taskflow_core.handlers import BadEntryPoint, Context, Handler, Registry, TaskType, task_type


class Payload(BaseModel):
    """What a handler under test receives."""


class Result(BaseModel):
    """What a handler under test returns."""


def plain(ctx: Context, payload: Payload) -> Result:
    """Do it at once.

    Only the first line is the summary.
    """
    return Result()


async def asynchronous(ctx: Context, payload: Payload) -> Result:
    return Result()


def without_result(ctx: Context, payload: Payload) -> None: ...


def without_return_annotation(ctx, payload: Payload):  # type: ignore[no-untyped-def]
    ...


def without_payload(ctx: Context) -> Result:
    return Result()


def with_a_third_parameter(ctx: Context, payload: Payload, more: int) -> Result:
    return Result()


def with_a_keyword_payload(ctx: Context, *, payload: Payload) -> Result:
    return Result()


def with_variable_arguments(ctx: Context, *payload: Payload) -> Result:
    return Result()


def without_annotation(ctx, payload):  # type: ignore[no-untyped-def]
    ...


def with_a_dict_payload(ctx: Context, payload: dict[str, Any]) -> Result:
    return Result()


def with_a_class_that_is_no_model(ctx: Context, payload: int) -> Result:
    return Result()


def with_a_dict_result(ctx: Context, payload: Payload) -> dict[str, Any]:
    return {}


def with_an_optional_result(ctx: Context, payload: Payload) -> Result | None:
    return None


@pytest.mark.parametrize(
    ("handler", "result", "is_async"),
    [
        (plain, Result, False),
        (asynchronous, Result, True),
        (without_result, None, False),
        (without_return_annotation, None, False),
    ],
)
def test_a_function_of_context_and_model_becomes_a_task_type(
    handler: Handler, result: type[BaseModel] | None, is_async: bool
) -> None:
    made = task_type("RESIZE_2", timeout_s=60)(handler)
    assert (made.name, made.payload, made.result, made.handler) == ("RESIZE_2", Payload, result, handler)
    assert (made.is_async, made.timeout_s) == (is_async, 60)


def test_the_summary_is_the_first_line_of_the_docstring() -> None:
    assert task_type("PLAIN")(plain).summary == "Do it at once."
    assert task_type("SILENT")(asynchronous).summary == ""


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        (without_payload, "two parameters"),
        (with_a_third_parameter, "two parameters"),
        (with_a_keyword_payload, "two parameters"),
        (with_variable_arguments, "two parameters"),
        (without_annotation, "second annotated with a pydantic model"),
        (with_a_dict_payload, "second annotated with a pydantic model"),
        (with_a_class_that_is_no_model, "second annotated with a pydantic model"),
        (with_a_dict_result, "return annotation must be a pydantic model or None"),
        (with_an_optional_result, "return annotation must be a pydantic model or None"),
    ],
)
def test_a_function_of_another_shape_is_refused_by_name(handler: Handler, words: str) -> None:
    with pytest.raises(TypeError, match=rf"task type RESIZE: .*{words}"):
        task_type("RESIZE")(handler)


@pytest.mark.parametrize("name", ["", "resize", "Resize", "RE SIZE", "RE-SIZE", "RÉSIZE", "___", "R" * 65, "A\n"])
def test_a_name_of_another_shape_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match="upper case letters, digits and underscores"):
        task_type(name)


@pytest.mark.parametrize("timeout_s", [0, -1, 86_401])
def test_a_timeout_that_the_database_would_refuse_is_refused_at_once(timeout_s: int) -> None:
    with pytest.raises(TypeError, match=f"timeout_s must lie between 1 and 86400, not {timeout_s}"):
        task_type("RESIZE", timeout_s=timeout_s)


PLUGIN = """
from pydantic import BaseModel
from taskflow_core.handlers import BadEntryPoint, Context, task_type

class Payload(BaseModel):
    width: int

@task_type("RESIZE")
def resize(ctx: Context, payload: Payload) -> None:
    "Resize a picture."

NOT_A_TYPE = 42
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an empty folder of installed packages, the only one that Python looks into."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    return tmp_path


def install(site: Path, package: str, entry_point: str, source: str = PLUGIN) -> None:
    (site / f"{package}.py").write_text(source)
    info = site / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[taskflow.task_types]\n{entry_point}\n")


def test_the_type_of_an_installed_package_is_found_by_name(site: Path) -> None:
    install(site, "pictures_found", "RESIZE = pictures_found:resize")
    registry = Registry.load()
    found = registry.get("RESIZE")
    assert isinstance(found, TaskType)
    assert found.summary == "Resize a picture."
    assert registry.names() == ["RESIZE"]
    assert registry.get("SHRINK") is None


@pytest.mark.parametrize(
    ("package", "entry_point"),
    [
        ("pictures_wrong", "RESIZE = pictures_wrong:NOT_A_TYPE"),
        ("pictures_renamed", "SHRINK = pictures_renamed:resize"),
    ],
)
def test_an_entry_point_that_is_no_type_of_its_name_is_named(site: Path, package: str, entry_point: str) -> None:
    install(site, package, entry_point)
    with pytest.raises(BadEntryPoint, match=f"entry point {entry_point} of {package} is not a task type of that name"):
        Registry.load()


def test_two_packages_with_one_type_are_refused_instead_of_one_winning(site: Path) -> None:
    install(site, "pictures_first", "RESIZE = pictures_first:resize")
    install(site, "pictures_second", "RESIZE = pictures_second:resize")
    with pytest.raises(BadEntryPoint, match=r"RESIZE = pictures_.*: another package has that task type"):
        Registry.load()


@pytest.mark.parametrize(
    ("package", "source", "words"),
    [
        ("broken_import", "import no_such_module", "ModuleNotFoundError: No module named 'no_such_module' .*, line 1"),
        ("broken_syntax", "def resize(:", "SyntaxError: "),
        ("broken_name", "other = 1", "AttributeError: .*resize"),
        ("broken_exit", "\nimport sys; sys.exit(0)", "SystemExit: 0 .*broken_exit.py, line 2"),
        ("broken_value", "int('x')", "ValueError: invalid literal"),
        ("broken_type", PLUGIN.replace('"RESIZE"', '"resize"'), "TypeError: task type 'resize'"),
    ],
)
def test_an_entry_point_that_cannot_be_imported_is_named_with_its_package_and_the_place(
    site: Path, package: str, source: str, words: str
) -> None:
    install(site, package, f"RESIZE = {package}:resize", source)
    with pytest.raises(
        BadEntryPoint, match=rf"entry point RESIZE = {package}:resize of {package} cannot be loaded: {words}"
    ):
        Registry.load()


@pytest.mark.parametrize("module", ["taskflow_api", "taskflow_worker", "taskflow_worker.scheduler"])
def test_a_process_leaves_with_2_and_one_sentence_when_a_package_is_broken(tmp_path: Path, module: str) -> None:
    install(tmp_path, "broken_plugin", "RESIZE = broken_plugin:resize", "import no_such_module")
    settings = {
        "TASKFLOW_DATABASE_URL": "postgresql://u:p@127.0.0.1:1/db",
        "TASKFLOW_REDIS_URL": "redis://127.0.0.1:1/0",
        "TASKFLOW_JWT_SECRET": "s" * 32,
    }
    done = subprocess.run(
        [sys.executable, "-m", module],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path), **settings},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith("taskflow: entry point RESIZE = broken_plugin:resize of broken_plugin cannot be loaded")
    assert sentence.endswith("mend or remove that package")


def test_a_machine_without_task_types_has_an_empty_registry(site: Path) -> None:
    assert Registry.load().names() == []
