import io
from pathlib import Path

import pytest

from taskflow_cli.failures import BadInput
from taskflow_cli.payloads import MAX_BYTES, read_payload


def test_a_payload_is_the_value_itself() -> None:
    assert read_payload('{"a": [1, "é"]}', stdin=io.BytesIO()) == {"a": [1, "é"]}


def test_a_payload_comes_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{"a": 1}')
    assert read_payload(f"@{tmp_path}/p.json", stdin=io.BytesIO()) == {"a": 1}


def test_a_payload_comes_from_standard_input() -> None:
    assert read_payload("-", stdin=io.BytesIO(b'{"a": 1}')) == {"a": 1}


@pytest.mark.parametrize(
    ("source", "words"),
    [
        pytest.param("{", "the value is not JSON: .*line 1 column 2", id="broken JSON"),
        pytest.param('{"a": NaN}', "NaN is no JSON value", id="NaN"),
        pytest.param("[1]", "the value is not a JSON object", id="a list"),
        pytest.param("@/nowhere/p.json", "cannot read /nowhere/p.json: No such file", id="no such file"),
        pytest.param("@/", "cannot read /: Is a directory", id="a folder"),
        pytest.param("[" * 100_000, "the value is not", id="nested too deep"),
    ],
)
def test_what_is_no_object_is_refused_with_its_place(source: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        read_payload(source, stdin=io.BytesIO())


def test_standard_input_is_read_up_to_a_bound() -> None:
    endless = io.BytesIO(b" " * (MAX_BYTES + 10))
    with pytest.raises(BadInput, match="standard input is over 16 MiB"):
        read_payload("-", stdin=endless)
    assert endless.tell() == MAX_BYTES + 1
