import json
from pathlib import Path

import pytest

from taskflow_cli.failures import BadInput
from taskflow_cli.location import DEFAULT_URL, Location, locate


def write_platform(folder: Path, document: object) -> None:
    (folder / ".taskflow").mkdir()
    (folder / ".taskflow/platform.json").write_text(json.dumps(document))


def test_the_option_goes_before_the_environment_and_the_folder(tmp_path: Path) -> None:
    write_platform(tmp_path, {"api_url": "http://127.0.0.1:7001"})
    environ = {"TASKFLOW_API_URL": "http://env.example.com"}
    found = locate("http://option.example.com/", environ=environ, folder=tmp_path)
    assert found == Location("http://option.example.com", "--api")


def test_the_environment_goes_before_the_folder(tmp_path: Path) -> None:
    write_platform(tmp_path, {"api_url": "http://127.0.0.1:7001"})
    found = locate(
        None, environ={"HOME": str(tmp_path), "TASKFLOW_API_URL": "https://env.example.com:8443"}, folder=tmp_path
    )
    assert found == Location("https://env.example.com:8443", "TASKFLOW_API_URL")


def test_the_platform_of_the_folder_goes_before_the_default(tmp_path: Path) -> None:
    write_platform(tmp_path, {"api_url": "http://127.0.0.1:7001"})
    assert locate(None, environ={"HOME": str(tmp_path)}, folder=tmp_path) == Location(
        "http://127.0.0.1:7001", ".taskflow/platform.json"
    )


def test_without_any_word_the_default_holds(tmp_path: Path) -> None:
    assert locate(None, environ={"HOME": str(tmp_path), "TASKFLOW_API_URL": ""}, folder=tmp_path) == Location(
        DEFAULT_URL, "the default"
    )


def test_a_folder_cannot_send_tokens_to_another_machine(tmp_path: Path) -> None:
    write_platform(tmp_path, {"api_url": "http://collector.example.com"})
    with pytest.raises(BadInput, match="is not on this machine"):
        locate(None, environ={"HOME": str(tmp_path)}, folder=tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", '{"api_url": ""}', "\xff"], ids=["broken", "list", "empty", "no UTF-8"])
def test_a_damaged_platform_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / ".taskflow").mkdir()
    (tmp_path / ".taskflow/platform.json").write_text(content, encoding="latin-1")
    with pytest.raises(BadInput, match=r"platform\.json"):
        locate(None, environ={"HOME": str(tmp_path)}, folder=tmp_path)


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000",
        "ftp://127.0.0.1",
        "http://",
        "http://host:99999",
        "http://host/other",
        "http://user:password@host",
        "http://host?x=1",
        "http://[::1",
    ],
)
def test_what_is_no_address_is_refused_with_its_source(tmp_path: Path, url: str) -> None:
    with pytest.raises(BadInput, match=r"--api: .* is not the address of an API") as caught:
        locate(url, environ={"HOME": str(tmp_path)}, folder=tmp_path)
    assert DEFAULT_URL in caught.value.hint


@pytest.mark.parametrize("url", ["http://host:9000", "http://host:9000/", "http://host:9000/api/v1/"])
def test_the_base_path_may_be_given_or_not(tmp_path: Path, url: str) -> None:
    assert locate(url, environ={"HOME": str(tmp_path)}, folder=tmp_path).url == "http://host:9000"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:1", True),
        ("http://[::1]:1", True),
        ("http://localhost:1", True),
        ("http://127.0.0.1.example.com", False),
        ("http://10.0.0.1", False),
    ],
)
def test_loopback_addresses_are_known(tmp_path: Path, url: str, expected: bool) -> None:
    assert locate(url, environ={"HOME": str(tmp_path)}, folder=tmp_path).is_loopback is expected
