import os
import stat
import threading
from pathlib import Path

import pytest

from taskflow_cli.credentials import Credentials, Login
from taskflow_cli.failures import BadInput, DeadlinePassed

URL, OTHER = "http://127.0.0.1:8000", "https://tasks.example.com"
LOGIN = Login("ada@example.com", "access", "refresh")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config/taskflow/credentials.json"


def put(credentials: Credentials, url: str, login: Login) -> None:
    with credentials.lock():
        credentials.put(url, login)


def test_a_login_is_kept_for_each_api(path: Path) -> None:
    credentials = Credentials(path)
    put(credentials, URL, LOGIN)
    put(credentials, OTHER, Login("bob@example.com", "a", "r"))
    assert Credentials(path).get(URL) == LOGIN
    with credentials.lock():
        credentials.forget(URL)
    assert (credentials.get(URL), credentials.get(OTHER)) == (None, Login("bob@example.com", "a", "r"))


def test_only_the_owner_reads_the_file_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        put(Credentials(path), URL, LOGIN)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_file_that_others_could_read_is_closed_by_the_next_change(path: Path) -> None:
    credentials = Credentials(path)
    put(credentials, URL, LOGIN)
    path.chmod(0o644)
    put(credentials, OTHER, LOGIN)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_change_that_fails_leaves_the_old_file_whole(path: Path) -> None:
    credentials = Credentials(path)
    put(credentials, URL, LOGIN)
    unwritable = Login("ada@example.com", "access", object())  # type: ignore[arg-type]  # JSON cannot hold it
    with credentials.lock(), pytest.raises(TypeError):
        credentials.put(URL, unwritable)
    assert credentials.get(URL) == LOGIN
    assert [file.name for file in path.parent.iterdir() if file.name.startswith(".")] == []


def test_no_file_means_no_login(path: Path) -> None:
    assert Credentials(path).get(URL) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"http://127.0.0.1:8000": {"token": "x"}}'])
def test_a_damaged_file_is_named_with_the_way_out(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(BadInput, match=r"cannot use .*credentials\.json") as caught:
        Credentials(path).get(URL)
    assert caught.value.hint == "remove the file and run: taskflow login"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="cannot write to"), Credentials(tmp_path / "file/x.json").lock():
        pass


def test_the_lock_keeps_other_commands_out_until_it_is_given_back(path: Path) -> None:
    inside, may_leave, order = threading.Event(), threading.Event(), []

    def first() -> None:
        with Credentials(path).lock():
            inside.set()
            may_leave.wait(timeout=10)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(timeout=10)
    may_leave.set()
    with Credentials(path).lock():
        order.append("second")
    thread.join(timeout=10)
    assert order == ["first", "second"]


def test_waiting_for_the_lock_has_an_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskflow_cli.credentials.LOCK_DEADLINE_S", 0.0)
    with Credentials(path).lock(), pytest.raises(DeadlinePassed), Credentials(path).lock():
        pass


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"XDG_CONFIG_HOME": "/x", "HOME": "/h"}, "/x/taskflow/credentials.json"),
        ({"XDG_CONFIG_HOME": "", "HOME": "/h"}, "/h/.config/taskflow/credentials.json"),
        ({"HOME": "/h"}, "/h/.config/taskflow/credentials.json"),
    ],
)
def test_the_file_lies_where_the_system_keeps_configuration(environ: dict[str, str], expected: str) -> None:
    assert str(Credentials.of_user(environ)._path) == expected
