"""Lanes: the lists of a queue."""

import pytest

from taskflow_core.lanes import lane_of, lanes_of, queue_of


@pytest.mark.parametrize(
    ("priority", "crowded", "lane"),
    [
        (1, False, "mail:high"),
        (0, False, "mail"),
        (-1, False, "mail:low"),
        (0, True, "mail:low"),
        (5, True, "mail:high"),
    ],
)
def test_a_tasks_priority_and_its_owners_crowd_choose_its_lane(priority: int, crowded: bool, lane: str) -> None:
    assert lane_of("mail", priority, crowded=crowded) == lane
    assert queue_of(lane) == "mail"


def test_every_lane_of_every_queue_is_listed_most_urgent_first() -> None:
    assert lanes_of(["a", "b"]) == ["a:high", "a", "a:low", "b:high", "b", "b:low"]
