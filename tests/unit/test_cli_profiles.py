import json
from pathlib import Path

import pytest

from taskflow_cli.failures import BadInput
from taskflow_cli.location import Location, locate
from taskflow_cli.main import main
from taskflow_cli.profiles import Profiles

CONFIG = """\
# mine
color = "blue"

[profiles.prod]
api = "https://tasks.example.com"

[profiles.test]
api = "http://127.0.0.1:9000"
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / ".config/taskflow"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(CONFIG)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / ".config"))
    for name in ("TASKFLOW_PROFILE", "TASKFLOW_API_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def find(home: Path, option: str | None = None, **environ: str) -> Location:
    return locate(option, environ={"HOME": str(home), **environ}, folder=home)


def test_a_profile_that_is_named_goes_before_the_environment_but_not_before_the_option(home: Path) -> None:
    environ = {"TASKFLOW_PROFILE": "prod", "TASKFLOW_API_URL": "http://env.example.com"}
    assert find(home, **environ) == Location("https://tasks.example.com", "profile prod", "prod")
    assert find(home, "http://option.example.com", **environ).source == "--api"


def test_a_profile_in_use_goes_before_the_folder_but_not_before_the_environment(home: Path) -> None:
    (home / ".taskflow").mkdir()
    (home / ".taskflow/platform.json").write_text(json.dumps({"api_url": "http://127.0.0.1:7001"}))
    assert find(home).source == ".taskflow/platform.json"
    Profiles.of_user({"HOME": str(home)}).use("test")
    assert find(home) == Location("http://127.0.0.1:9000", "profile test", "test")
    assert find(home, TASKFLOW_API_URL="http://env.example.com").source == "TASKFLOW_API_URL"


def test_using_a_profile_leaves_the_rest_of_the_file_as_it_is(home: Path) -> None:
    for name in ("prod", "test"):
        Profiles.of_user({"HOME": str(home)}).use(name)
    assert (home / ".config/taskflow/config.toml").read_text() == f'profile = "test"\n{CONFIG}'


def test_the_login_of_a_profile_is_its_own_and_follows_it_to_no_other_address() -> None:
    keys = {
        Location("https://a.example.com", "profile prod", "prod").login_key,
        Location("https://b.example.com", "profile prod", "prod").login_key,
        Location("https://a.example.com", "profile test", "test").login_key,
        Location("https://a.example.com", "--api").login_key,
    }
    assert len(keys) == 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("[profiles.prod]\n", "has no api", id="no api"),
        pytest.param("[profiles.prod]\napi = 1\n", "has no api", id="no text"),
        pytest.param("[profiles.other]\napi = 'x'\n", r"it has: other", id="another name"),
        pytest.param("[profiles", "cannot use", id="no TOML"),
        pytest.param("[profiles.prod]\napi = 'ftp://x'\n", "is not the address of an API", id="no address"),
    ],
)
def test_a_profile_that_cannot_be_used_is_explained(home: Path, text: str, words: str) -> None:
    (home / ".config/taskflow/config.toml").write_text(text)
    with pytest.raises(BadInput, match=words):
        find(home, TASKFLOW_PROFILE="prod")


def test_profiles_are_listed_and_chosen_by_commands(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["profile", "use", "prod"], ["profile", "ls", "--json"]):
        with pytest.raises(SystemExit) as left:
            main(command)
        assert left.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith("Profile prod (https://tasks.example.com) is used from now on.\n")
    assert [(row["name"], row["default"]) for row in json.loads(out[out.index("[") :])] == [
        ("prod", True),
        ("test", False),
    ]
