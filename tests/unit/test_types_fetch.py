"""URLs of the guarded client: whatever is written there, the answer is a URL that may be called or a refusal."""

import contextlib

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskflow_core.fetch import FetchRefused, checked_url, redirected, same_origin


@given(st.text(max_size=60) | st.text(max_size=40).map(lambda rest: "http://" + rest))
def test_any_text_is_a_callable_url_or_refused(text: str) -> None:
    with contextlib.suppress(FetchRefused):
        url = checked_url(text)
        assert url.scheme in {"http", "https"}
        assert url.host
        assert not url.userinfo
        assert not url.fragment


@given(st.text(max_size=60))
def test_any_location_leads_to_a_callable_url_or_is_refused(location: str) -> None:
    with contextlib.suppress(FetchRefused):
        assert redirected(httpx2.URL("https://a.example/x"), location).scheme == "https"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://a.example/x", "https://A.example:443/y", True),
        ("http://a.example", "http://a.example:80", True),
        ("http://a.example", "https://a.example", False),
        ("http://a.example", "http://b.example", False),
        ("http://a.example:1", "http://a.example:2", False),
    ],
)
def test_an_origin_is_scheme_host_and_port(one: str, other: str, same: bool) -> None:
    assert same_origin(httpx2.URL(one), httpx2.URL(other)) is same
