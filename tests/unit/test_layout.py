"""The repository keeps the shape that CONTRIBUTING.md tells."""

import ast
import re
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
COMPONENTS = ("core", "api", "worker", "client", "cli", "operator")
FOLDERS = (*COMPONENTS, "migrations", "tests", "benchmarks")
LOCKS = tuple(f"requirements/{name}.txt" for name in ("dev", "platform", "operator", "build", "bench"))
MAX_FILE_LINES = 350
MAX_FUNCTION_LINES = 45
MAX_DECISION_LINES = 40
RULE = re.compile(r'"[A-Z]+[0-9]*"')
REASON = re.compile(r"#\s*\w.*\w")
SILENCED_WITH_REASON = re.compile(r"# noqa: [A-Z]+[0-9]+(, ?[A-Z]+[0-9]+)*\W+\w")
PIN = re.compile(r"^([a-z0-9._-]+)(?:\[[a-z,]+\])?==([^ ;\\]+)", re.MULTILINE)


def sources(*folders: str) -> list[Path]:
    return sorted(file for folder in folders for file in (ROOT / folder).rglob("*.py"))


def name(file: Path) -> str:
    return str(file.relative_to(ROOT))


def functions(file: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def pyproject() -> str:
    return (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize("folder", [*COMPONENTS, "tests", "tests/operator"])
def test_a_component_folder_is_not_a_package(folder: str) -> None:
    assert not (ROOT / folder / "__init__.py").exists()


def test_operator_is_the_standard_librarys_even_at_the_root_of_the_repository() -> None:
    program = (
        "import operator, sysconfig; operator.attrgetter; print(operator.__file__); print(sysconfig.get_path('stdlib'))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    ).stdout
    file, stdlib = shown.split()
    assert Path(file).parent == Path(stdlib)


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    lengths = {name(file): len(file.read_text().splitlines()) for file in sources(*FOLDERS)}
    assert {file: length for file, length in lengths.items() if length > MAX_FILE_LINES} == {}


def test_no_function_is_longer_than_a_screen() -> None:
    long = [
        f"{name(file)}:{function.lineno} {function.name}"
        for file in sources(*COMPONENTS, "migrations")
        for function in functions(file)
        if (function.end_lineno or 0) - function.lineno + 1 > MAX_FUNCTION_LINES
    ]
    assert long == []


def test_an_init_holds_a_docstring_and_nothing_else() -> None:
    trees = {name(file): ast.parse(file.read_bytes()) for file in sources(*FOLDERS) if file.name == "__init__.py"}
    assert trees
    assert [file for file, tree in trees.items() if len(tree.body) != 1 or not ast.get_docstring(tree)] == []


def test_no_module_is_called_utils() -> None:
    assert [name(file) for file in sources(*FOLDERS) if file.stem in {"util", "utils", "helpers", "common"}] == []


def sleeps(file: Path) -> Iterator[int]:
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "time.sleep":
            yield node.lineno
        if isinstance(node, ast.ImportFrom) and node.module == "time" and "sleep" in {item.name for item in node.names}:
            yield node.lineno


def test_no_test_sleeps_to_wait_for_something() -> None:
    plugin = ROOT / "tests" / "plugin"  # its handlers stand for work that takes time
    tests = [file for file in sources("tests") if file.name != "waiting.py" and not file.is_relative_to(plugin)]
    assert [f"{name(file)}:{line}" for file in tests for line in sleeps(file)] == []


def test_every_rule_that_is_switched_off_says_why() -> None:
    section = pyproject().partition("\nignore = [")[2].partition("[tool.ruff.lint.flake8-bugbear]")[0]
    rules = [line for line in section.splitlines() if RULE.search(line)]
    assert rules
    assert [line for line in rules if not REASON.search(line)] == []


def test_every_warning_that_is_silenced_in_the_code_says_why() -> None:
    silent = []
    for file in sources(*FOLDERS):
        with file.open("rb") as lines:
            comments = [token for token in tokenize.tokenize(lines.readline) if token.type == tokenize.COMMENT]
        silent += [
            f"{name(file)}:{comment.start[0]}"
            for comment in comments
            if "noqa" in comment.string and not SILENCED_WITH_REASON.search(comment.string)
        ]
    assert silent == []


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_hashes_and_no_address(lock: str) -> None:
    text = (ROOT / lock).read_text()
    pins = [part for part in re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE) if "==" in part]
    assert pins
    assert not re.search(r"://|--index-url|--extra-index-url|--find-links|--trusted-host", text)
    assert [pin.partition(" ")[0] for pin in pins if "--hash=sha256:" not in pin] == []


@pytest.mark.parametrize(
    ("lock", "extras"),
    [
        ("requirements/dev.txt", ["embedded", "operator", "dev"]),
        ("requirements/platform.txt", []),
        ("requirements/operator.txt", ["operator"]),
    ],
)
def test_a_lock_satisfies_what_the_project_asks_for(lock: str, extras: list[str]) -> None:
    project = tomllib.loads(pyproject())["project"]
    wanted = [*project["dependencies"], *(item for extra in extras for item in project["optional-dependencies"][extra])]
    pinned: dict[str, str] = dict(PIN.findall((ROOT / lock).read_text()))
    unmet = [str(need) for need in map(Requirement, wanted) if pinned.get(need.name, "") not in need.specifier]
    assert unmet == [], "run make lock"
    assert ("pytest" in pinned) == ("dev" in extras)


def test_make_alone_lists_every_command() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = {target for line in re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE) for target in line.split()}
    shown = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert {"setup", "up", "demo", "test", "lint", "types", "lock"} <= targets
    assert {line.split()[1] for line in shown.splitlines()} == targets
    assert all(len(line.split()) > 3 for line in shown.splitlines())


def test_a_decision_fits_on_a_page() -> None:
    lengths = {file.name: len(file.read_text().splitlines()) for file in (ROOT / "docs" / "adr").glob("*.md")}
    assert lengths
    assert {file: length for file, length in lengths.items() if length > MAX_DECISION_LINES} == {}
