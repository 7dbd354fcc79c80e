"""What workers and the operator tell each other, as text."""

import pytest

from taskflow_core.beacons import Beacon, fresh_runs, read_beacon, run_sample

BEACON = Beacon("w-1", ["high", "low"], ["low"], 4, 0, 1_700_000_000.5, "draining", "token")


def test_a_beacon_is_read_as_it_was_written() -> None:
    assert read_beacon(BEACON.to_json()) == BEACON


@pytest.mark.parametrize("raw", [None, b"", b"{", b"[]", b'{"busy": 1}', b"null", b"\xff"])
def test_what_is_no_beacon_counts_as_none(raw: bytes | None) -> None:
    assert read_beacon(raw) is None


def test_run_times_count_for_ten_minutes() -> None:
    samples = [run_sample(at_s=at_s, seconds=at_s / 100).encode() for at_s in (300, 399, 400, 1000)]
    assert fresh_runs([*samples, b"nonsense", b"a b"], now_s=1000) == [4.0, 10.0]
