import re
import subprocess
import sys

import pytest
from typer.core import TyperGroup
from typer.main import get_group

from taskflow_cli.main import build_app, main

ROOT = get_group(build_app())
COMMANDS = sorted(ROOT.commands)
ALL = sorted(
    [name] if not isinstance(command, TyperGroup) else [name, inner]
    for name, command in ROOT.commands.items()
    for inner in getattr(command, "commands", {"": None})
)


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")


def help_of(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    with pytest.raises(SystemExit) as left:
        main([*command, "--help"])
    assert left.value.code == 0
    return capsys.readouterr().out


def test_the_help_teaches_panels_examples_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(capsys)
    for words in ("Run the platform", "Work with tasks", "Account", "Examples", "Exit codes", "3  the deadline passed"):
        assert words in text
    assert all(re.search(rf"^│ {command}\s", text, re.MULTILINE) for command in COMMANDS)


@pytest.mark.parametrize("command", [*ALL, *([name] for name in COMMANDS if [name] not in ALL)], ids=" ".join)
def test_the_help_of_every_command_holds_an_example(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    _, _, after = help_of(capsys, *command).partition("Examples")
    assert re.search(rf"\btaskflow {' '.join(command)}\b", after)


def test_help_does_not_load_what_only_commands_need() -> None:
    script = (
        "import sys; from taskflow_cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'httpx2', 'pydantic', 'sqlalchemy', 'alembic', 'fastapi', 'rich.progress'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_wrong_usage_leaves_with_2_and_says_what_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["ls", "--status", "DONE"])
    assert left.value.code == 2
    assert "'pending', 'running'" in " ".join(capsys.readouterr().err.split())


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0
    assert re.fullmatch(r"taskflow \d+\.\d+\.\d+\n", capsys.readouterr().out)
