"""The state machine, pair by pair, and the bounds of the backoff."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskflow_core.errors import IllegalTransition
from taskflow_core.lifecycle import BACKOFF_BASE_S, BACKOFF_CAP_S, FINAL, TRANSITIONS, TaskStatus, advance, backoff_s

LEGAL = {
    ("PENDING", "RUNNING"),
    ("PENDING", "CANCELED"),
    ("PENDING", "FAILED"),
    ("RUNNING", "COMPLETED"),
    ("RUNNING", "FAILED"),
    ("RUNNING", "CANCELED"),
    ("RUNNING", "PENDING"),
    ("FAILED", "PENDING"),
}
PAIRS = list(product(TaskStatus, TaskStatus))
attempts = st.integers(min_value=1, max_value=100_000)
spreads = st.floats(min_value=0, max_value=1)
bases = st.floats(min_value=0.001, max_value=600)


@pytest.mark.parametrize(("current", "target"), [pair for pair in PAIRS if pair in LEGAL])
def test_a_legal_move_gives_the_new_status(current: TaskStatus, target: TaskStatus) -> None:
    assert advance(current, target) is target


@pytest.mark.parametrize(("current", "target"), [pair for pair in PAIRS if pair not in LEGAL])
def test_any_other_move_is_refused_and_names_both_statuses(current: TaskStatus, target: TaskStatus) -> None:
    with pytest.raises(IllegalTransition, match=f"a task that is {current} cannot become {target}"):
        advance(current, target)


def test_every_status_has_a_row_in_the_table() -> None:
    assert set(TRANSITIONS) == set(TaskStatus)


def test_only_a_failed_task_leaves_a_final_status() -> None:
    assert {status for status in FINAL if TRANSITIONS[status]} == {TaskStatus.FAILED}


@pytest.mark.parametrize(
    ("attempt", "expected"),
    [(1, 2.0), (2, 4.0), (3, 8.0), (11, 2048.0), (12, 3600.0), (1000, 3600.0)],
)
def test_without_jitter_the_backoff_doubles_up_to_an_hour(attempt: int, expected: float) -> None:
    assert backoff_s(attempt, spread=1) == expected


@given(attempt=attempts, spread=spreads, base=bases)
def test_the_jitter_keeps_between_half_and_all_of_the_backoff(attempt: int, spread: float, base: float) -> None:
    whole = backoff_s(attempt, spread=1, base_s=base)
    assert whole / 2 <= backoff_s(attempt, spread=spread, base_s=base) <= whole


@given(attempt=attempts, spread=spreads, base=bases)
def test_the_backoff_is_never_shorter_than_half_the_base_nor_longer_than_the_cap(
    attempt: int, spread: float, base: float
) -> None:
    assert base / 2 <= backoff_s(attempt, spread=spread, base_s=base) <= BACKOFF_CAP_S


@given(attempt=attempts, spread=spreads, base=bases)
def test_a_later_attempt_never_waits_less(attempt: int, spread: float, base: float) -> None:
    assert backoff_s(attempt, spread=spread, base_s=base) <= backoff_s(attempt + 1, spread=spread, base_s=base)


@given(attempt=attempts, low=spreads, high=spreads)
def test_the_backoff_grows_with_the_spread(attempt: int, low: float, high: float) -> None:
    low, high = sorted((low, high))
    assert backoff_s(attempt, spread=low) <= backoff_s(attempt, spread=high)


@given(attempt=st.integers(max_value=0))
def test_an_attempt_that_never_ran_waits_like_the_first(attempt: int) -> None:
    assert backoff_s(attempt, spread=1) == BACKOFF_BASE_S
