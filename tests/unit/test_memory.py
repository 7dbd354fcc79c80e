"""A short memory forgets in time, keeps its bound, and never remembers longer than what it was told is true."""

import time

import pytest

from taskflow_core.memory import ShortMemory


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def test_a_value_is_remembered_from_the_moment_it_was_asked_for(clock: Clock) -> None:
    memory: ShortMemory[str, int] = ShortMemory(seconds=5, most=10)
    memory.put("a", 1, asked_at=clock.now - 2)
    clock.now += 2.9
    assert memory.get("a") == 1
    clock.now += 0.1
    assert memory.get("a") is None
    assert len(memory) == 0


def test_nothing_is_remembered_for_no_seconds(clock: Clock) -> None:
    memory: ShortMemory[str, int] = ShortMemory(seconds=0, most=10)
    memory.put("a", 1, asked_at=clock.now)
    assert memory.get("a") is None


def test_the_oldest_makes_room_and_a_renewed_one_is_young(clock: Clock) -> None:
    memory: ShortMemory[str, int] = ShortMemory(seconds=5, most=2)
    for key in ("a", "b", "a", "c"):
        memory.put(key, 1, asked_at=clock.now)
    assert [memory.get(key) for key in "abc"] == [1, None, 1]
    assert len(memory) == 2


def test_what_is_forgotten_is_gone_and_may_be_forgotten_again(clock: Clock) -> None:
    memory: ShortMemory[str, int] = ShortMemory(seconds=5, most=2)
    memory.put("a", 1, asked_at=clock.now)
    for _ in range(2):
        memory.forget("a")
        assert memory.get("a") is None
