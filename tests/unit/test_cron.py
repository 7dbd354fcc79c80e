"""When a cron expression fires, around changes of the clock too."""

from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskflow_core import cron
from taskflow_core.errors import Invalid

BERLIN = "Europe/Berlin"  # 2026-03-29 02:00 becomes 03:00, 2026-10-25 03:00 becomes 02:00


def moments(expression: str, zone: str, after: str, count: int = 3) -> list[str]:
    start = datetime.fromisoformat(after).replace(tzinfo=UTC)
    return [f"{moment:%m-%d %H:%M}" for moment in islice(cron.firings(expression, zone, after=start), count)]


@pytest.mark.parametrize(
    ("expression", "zone", "after", "expected"),
    [
        pytest.param(
            "*/20 * * * *", "UTC", "2026-01-01 00:05", ["01-01 00:20", "01-01 00:40", "01-01 01:00"], id="step"
        ),
        pytest.param(
            "0 9 * * MON-FRI", "UTC", "2026-01-02 09:00", ["01-05 09:00", "01-06 09:00", "01-07 09:00"], id="week"
        ),
        pytest.param(
            "0 9 * * *", BERLIN, "2026-03-27 12:00", ["03-28 08:00", "03-29 07:00", "03-30 07:00"], id="local"
        ),
        pytest.param("0 0 29 2 *", "UTC", "2026-01-01 00:00", ["02-29 00:00"] * 3, id="leap"),
        pytest.param("0 0 13 * FRI", "UTC", "2026-01-01 00:00", ["01-02 00:00", "01-09 00:00", "01-13 00:00"], id="or"),
        pytest.param(
            "0 12 * * *",
            "Asia/Kathmandu",
            "2026-01-01 00:00",
            ["01-01 06:15", "01-02 06:15", "01-03 06:15"],
            id="quarter",
        ),
    ],
)
def test_it_fires_when_the_clock_of_its_zone_says_so(
    expression: str, zone: str, after: str, expected: list[str]
) -> None:
    assert moments(expression, zone, after) == expected


def test_a_time_that_the_clock_skips_fires_right_after_the_gap() -> None:
    assert moments("30 2 * * *", BERLIN, "2026-03-28 00:00") == ["03-28 01:30", "03-29 01:00", "03-30 00:30"]


def test_times_that_the_clock_skips_together_fire_once() -> None:
    assert moments("0,15,30 2 * * *", BERLIN, "2026-03-28 23:00") == ["03-29 01:00", "03-30 00:00", "03-30 00:15"]


def test_a_time_that_comes_twice_fires_the_first_time_alone() -> None:
    assert moments("30 2 * * *", BERLIN, "2026-10-24 12:00") == ["10-25 00:30", "10-26 01:30", "10-27 01:30"]


def test_after_the_first_of_two_equal_times_the_second_is_no_firing() -> None:
    assert moments("30 2 * * *", BERLIN, "2026-10-25 01:10") == ["10-26 01:30", "10-27 01:30", "10-28 01:30"]


def test_what_runs_within_the_hour_goes_by_real_time_through_both_changes() -> None:
    spring = moments("*/30 * * * *", BERLIN, "2026-03-29 00:10", 4)
    assert spring == ["03-29 00:30", "03-29 01:00", "03-29 01:30", "03-29 02:00"]
    autumn = moments("*/30 * * * *", BERLIN, "2026-10-25 00:10", 4)
    assert autumn == ["10-25 00:30", "10-25 01:00", "10-25 01:30", "10-25 02:00"]


@given(
    st.sampled_from(["* * * * *", "*/7 1-4 * * *", "0,30 1,2,3 * * *", "15 */2 * * *", "59 2 * * SUN"]),
    st.sampled_from([BERLIN, "America/New_York", "Australia/Lord_Howe", "Africa/Cairo", "America/Havana", "UTC"]),
    st.integers(1_577_836_800, 1_893_456_000),
)
def test_firings_only_ever_go_forward(expression: str, zone: str, start: int) -> None:
    after = datetime.fromtimestamp(start, UTC)
    found = [after, *islice(cron.firings(expression, zone, after=after), 20)]
    assert all(earlier < later for earlier, later in pairwise(found))


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("", "five fields"),
        ("* * * *", "five fields"),
        ("* * * * * *", "five fields"),
        ("@daily", "five fields"),
        ("60 * * * *", "bad minute"),
        ("* 24 * * *", "bad hour"),
        ("* * 0 * *", "bad day-of-month"),
        ("* * * JANUARY *", "bad month"),
        ("* * * * 8", "bad day-of-week"),
        ("*/0 * * * *", "bad minute"),
        ("5-1 * * * *", "bad minute"),
        ("1--2 * * * *", "bad minute"),
        ("\u0663 * * * *", "ASCII"),
        ("* * * * *" + " " * 100, "100"),
        ("* * * * 5L/2", "bad day-of-week"),
        ("0 0 30 2 *", "bad day-of-month"),
        ("0 0 */30 2 1L", "never fires"),
    ],
)
def test_an_expression_that_cannot_fire_is_refused_by_its_field(expression: str, words: str) -> None:
    with pytest.raises(Invalid) as refused:
        cron.first(expression, "UTC", after=datetime(2026, 1, 1, tzinfo=UTC))
    (problem,) = refused.value.fields
    assert problem.field == "cron"
    assert words in problem.message


@given(st.text(st.sampled_from("0123456789*/,-#L W\x00SUNé?"), max_size=40))
def test_no_expression_raises_anything_else(expression: str) -> None:
    with suppress(Invalid):
        cron.first(expression, BERLIN, after=datetime(2026, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    "zone", ["", "Berlin", "europe/berlin", "../../etc/passwd", "/etc/localtime", "Europe", "UTC\0"]
)
def test_a_zone_that_is_not_of_the_database_is_refused(zone: str) -> None:
    with pytest.raises(Invalid) as refused:
        cron.first("* * * * *", zone, after=datetime(2026, 1, 1, tzinfo=UTC))
    assert refused.value.fields[0].field == "timezone"
