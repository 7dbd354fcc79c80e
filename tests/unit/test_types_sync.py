"""SYNC without IO: payloads, dotted paths, documents, what makes a record fit, when to come back."""

import contextlib
import csv
import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from taskflow_core.fetch import Fetched, retry_after
from taskflow_worker.types.sync.models import HttpTarget, Source, SyncPayload, TableTarget
from taskflow_worker.types.sync.records import MAX_RECORD_BYTES, Malformed, Unfit, at, fit, parse_csv, parse_json
from taskflow_worker.types.sync.source import first_url, next_url

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
PAYLOAD: dict[str, Any] = {"source": {"url": "https://a.example/x"}, "key": "id", "target": {"collection": "c"}}
words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=10)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=12,
)
names = st.text(st.characters(exclude_characters=".", min_codepoint=0x20), min_size=1, max_size=10)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"source": {"url": "ftp://a.example/"}}, "source.url"),
        ({"source": {"url": "https://u:p@a.example/"}}, "source.url"),
        ({"source": {"url": "https://a.example/#x"}}, "source.url"),
        ({"source": {"url": "https://a.example/", "headers": {"Host": "b"}}}, "source.headers"),
        ({"source": {"url": "https://a.example/", "headers": {"A": "b\r\nC: d"}}}, "source.headers.A"),
        ({"source": {"url": "https://a.example/", "headers": {"A B": "b"}}}, "source.headers"),
        ({"source": {"url": "https://a.example/", "pagination": {"kind": "pages"}}}, "source.pagination"),
        ({"key": ""}, "key"),
        ({"key": "a..b"}, "key"),
        ({"target": {"collection": "push:x"}}, "target.table.collection"),
        ({"target": {"url": "https://a.example/?x=1"}}, "target.http.url"),
        ({"target": {"url": "https://a.example/", "collection": "c"}}, "target.http.collection"),
        ({"more": 1}, "more"),
    ],
)
def test_a_payload_that_would_not_work_is_refused_by_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        SyncPayload.model_validate({**PAYLOAD, **changes})
    assert field in str(caught.value)


def test_a_payload_survives_being_dumped_and_read_again() -> None:
    for target, model in (({"collection": "c"}, TableTarget), ({"url": "https://a.example/api"}, HttpTarget)):
        payload = SyncPayload.model_validate({**PAYLOAD, "target": target})
        assert isinstance(payload.target, model)
        assert SyncPayload.model_validate(payload.model_dump(mode="json")) == payload


@given(st.lists(names, min_size=1, max_size=5), json_values)
def test_a_dotted_path_finds_what_was_put_there(steps: list[str], value: Any) -> None:
    document = value
    for step in reversed(steps):
        document = {step: document}
    assert at(document, ".".join(steps)) == value


@given(json_values, st.text(max_size=20))
def test_no_path_fails_on_any_document(document: Any, path: str) -> None:
    at(document, path)


def test_a_number_in_a_path_counts_in_a_list() -> None:
    assert at({"pages": [{"items": [1]}, {"items": [2]}]}, "pages.1.items.0") == 2
    assert at([1], "1") is None
    assert at([1], "-1") is None


@given(st.dictionaries(words, json_values, max_size=5))
def test_a_fit_record_is_canonical_whatever_the_order_of_its_fields(record: dict[str, Any]) -> None:
    whole = {**record, "id": "k"}
    turned = dict(reversed(list(whole.items())))
    one, other = fit(whole, "id"), fit(turned, "id")
    assert one == other
    assert one.digest == other.digest
    assert json.loads(one.text) == whole


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ("text", "not an object"),
        (["a"], "fields as the header"),
        ({}, "no text or whole number at 'id'"),
        ({"id": ""}, "no text or whole number"),
        ({"id": True}, "no text or whole number"),
        ({"id": 1.5}, "no text or whole number"),
        ({"id": "a", "b": "\x00"}, "U\\+0000"),
        ({"id": "a", "b": {"\x00": 1}}, "U\\+0000"),
        ({"id": "a", "b": "\ud800"}, "JSON cannot"),
        ({"id": "a", "b": float("inf")}, "JSON cannot"),
        ({"id": "a", "b": "x" * MAX_RECORD_BYTES}, "larger than"),
        ({"id": "a" * 501}, "larger than"),
    ],
)
def test_an_unfit_record_says_why(record: Any, reason: str) -> None:
    with pytest.raises(Unfit, match=reason):
        fit(record, "id")


@pytest.mark.parametrize("text", ["\\u0000", "\\\\u0000", "\\", "\\\\"])
def test_a_backslash_before_u0000_is_not_a_nul(text: str) -> None:
    assert json.loads(fit({"id": 1, "b": text}, "id").text)["b"] == text


@given(st.binary(max_size=60))
def test_any_bytes_are_json_or_malformed(body: bytes) -> None:
    with contextlib.suppress(Malformed):
        parse_json(body)


@pytest.mark.parametrize("body", [b"", b"NaN", b"[" * 100_000, b"1" * 5000, b"{", b"\xff"])
def test_what_is_not_json_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        parse_json(body)


def test_whole_numbers_keep_every_digit() -> None:
    assert parse_json(b"[12345678901234567890123]") == [12345678901234567890123]


@given(st.lists(st.lists(words, min_size=2, max_size=2), max_size=5))
def test_csv_that_was_written_is_read_the_same(rows: list[list[str]]) -> None:
    written = io.StringIO()
    csv.writer(written, quoting=csv.QUOTE_ALL).writerows([["a", "b"], *rows])
    assert parse_csv(written.getvalue().encode(), "utf-8") == [dict(zip("ab", row, strict=True)) for row in rows]


def test_csv_may_start_with_a_mark_and_rows_of_another_length_are_kept_apart() -> None:
    assert parse_csv(b"\xef\xbb\xbfid,b\n1,2\n\n3\n", "utf-8") == [{"id": "1", "b": "2"}, ["3"]]
    assert parse_csv("id\nü\n".encode("latin-1"), "latin-1") == [{"id": "ü"}]
    assert parse_csv(b"", "utf-8") == []


@pytest.mark.parametrize(
    ("body", "charset"), [(b"a,a\n1,2", "utf-8"), (b"a,\n1,2", "utf-8"), (b"\xff", "utf-8"), (b"a", "no-such")]
)
def test_csv_that_cannot_be_read_is_malformed(body: bytes, charset: str) -> None:
    with pytest.raises(Malformed):
        parse_csv(body, charset)


def source(**pagination: Any) -> Source:
    return Source.model_validate({"url": "https://a.example/x?q=1", "pagination": pagination})


def answer(**headers: str) -> Fetched:
    return Fetched(200, httpx2.Headers(headers), b"", "https://a.example/x?q=1")


def test_every_kind_of_pagination_leads_to_the_next_page() -> None:
    numbered = source(kind="page_param", name="p", start=0, size_name="n", size=5)
    assert first_url(numbered) == "https://a.example/x?q=1&p=0&n=5"
    assert next_url(numbered, 0, answer(), None, [1]) == "https://a.example/x?q=1&p=1&n=5"
    assert next_url(numbered, 0, answer(), None, []) is None
    linked = source(kind="link_header")
    assert next_url(linked, 0, answer(link='<x?page=2>; rel="next"'), None, []) == "https://a.example/x?page=2"
    assert next_url(linked, 0, answer(), None, [1]) is None
    pointed = source(kind="next_field", path="meta.next")
    assert next_url(pointed, 0, answer(), {"meta": {"next": "/y"}}, []) == "https://a.example/y"
    assert next_url(pointed, 0, answer(), {"meta": {}}, []) is None
    cursor = source(kind="next_field", path="cursor", param="after")
    assert next_url(cursor, 0, answer(), {"cursor": "a b"}, []) in {
        "https://a.example/x?q=1&after=a+b",
        "https://a.example/x?q=1&after=a%20b",
    }
    with pytest.raises(Malformed, match="leads to int"):
        next_url(pointed, 0, answer(), {"meta": {"next": 3}}, [])


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("7", 7),
        ("999999999999999", 3600),
        ("Tue, 24 Nov 2026 12:01:00 GMT", 60),
        ("Tue, 24 Nov 2026 11:00:00 GMT", 0),
        ("soon", None),
        ("-1", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_a_date_and_bounded(value: str | None, seconds: int | None) -> None:
    assert retry_after(value, now=NOW) == (None if seconds is None else timedelta(seconds=seconds))
