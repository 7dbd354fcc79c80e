"""Passwords: nothing is truncated, foreign hashes are upgraded, the queue for threads is bounded."""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import pytest
from argon2 import PasswordHasher

from taskflow_core import hashing, passwords
from taskflow_core.errors import Unavailable
from taskflow_core.hashing import LAST, SHARE, Check, Hasher
from taskflow_core.passwords import Passwords


@pytest.fixture
def ours() -> Iterator[Passwords]:
    made = Passwords(rounds=4)
    yield made
    made.close()


@pytest.mark.parametrize("password", ["x" * 8, "x" * 128, "ü" * 128, "a\0b" * 4, "🔑" * 40])
async def test_a_password_is_right_in_full_and_wrong_by_its_last_character(ours: Passwords, password: str) -> None:
    stored = await ours.hash(password)
    assert await ours.check(password, stored) == Check(True)
    assert await ours.check(password[:-1], stored) == Check(False)
    assert await ours.check(password + "x", stored) == Check(False)


@pytest.mark.parametrize(
    "stored",
    [
        bcrypt.hashpw(b"hello world", bcrypt.gensalt(4)).decode(),
        PasswordHasher(time_cost=1, memory_cost=1024).hash("hello world"),
    ],
    ids=["bcrypt", "argon2id"],
)
async def test_a_foreign_hash_is_accepted_with_a_better_one_to_keep(ours: Passwords, stored: str) -> None:
    checked = await ours.check("hello world", stored)
    assert checked.right
    assert checked.new_hash is not None
    assert checked.new_hash.startswith("$bcrypt-sha256$")
    assert await ours.check("hello world", checked.new_hash) == Check(True)
    assert await ours.check("hello World", stored) == Check(False)


async def test_a_cheaper_hash_is_upgraded_to_the_rounds_of_today(ours: Passwords) -> None:
    stored = await ours.hash("hello world")
    dearer = Passwords(rounds=5)
    checked = await dearer.check("hello world", stored)
    dearer.close()
    assert checked.new_hash is not None
    assert "r=5" in checked.new_hash


@pytest.mark.parametrize("stored", ["garbage", "", "$2b$04$broken", "$bcrypt-sha256$v=2,t=2b,r=4$x$y"])
async def test_a_stored_hash_that_is_none_is_never_right(ours: Passwords, stored: str) -> None:
    assert await ours.check("hello world", stored) == Check(False)


async def test_a_long_password_never_matches_a_plain_bcrypt_hash_of_its_start(ours: Passwords) -> None:
    stored = bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4)).decode()
    assert await ours.check("x" * 80, stored) == Check(False)


async def test_an_unknown_account_is_never_right_even_with_the_password_of_nobody(ours: Passwords) -> None:
    assert await ours.check("the password of an account that does not exist", None) == Check(False)


async def test_too_many_at_once_are_turned_away_and_room_comes_back(
    ours: Passwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passwords, "MAX_WAITING", 3)
    answers = await asyncio.gather(*(ours.hash(f"password {n}") for n in range(10)), return_exceptions=True)
    assert sum(isinstance(answer, str) for answer in answers) == 3
    assert sum(isinstance(answer, Unavailable) for answer in answers) == 7
    assert await ours.hash("password")


@pytest.fixture
def hasher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hasher]:
    monkeypatch.setattr(hashing, "PATIENCE_S", 60.0)
    hasher = Hasher(rounds=4)
    yield hasher
    hasher.close()


def children() -> set[int]:
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


def test_a_process_of_its_own_hashes_at_the_lowest_priority_and_knows_no_secrets(hasher: Hasher) -> None:
    others = children()
    stored = hasher.answer(["correct horse"])
    (pid,) = children() - others
    assert hasher.answer(["correct horse", stored]) == [True, None]
    assert hasher.answer(["wrong horse", stored]) == [False, None]
    assert os.getpriority(os.PRIO_PROCESS, pid) == 19
    assert os.getsid(pid) == pid
    assert Path(f"/proc/{pid}/environ").read_text().strip("\0").startswith("PYTHONPATH=")
    assert Path(f"/proc/{pid}/environ").read_text().strip("\0").count("\0") == 0
    hasher.close()
    assert children() == others


@pytest.mark.parametrize("fate", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_dies_or_gets_no_time_is_replaced_by_one_with_a_share(
    hasher: Hasher, monkeypatch: pytest.MonkeyPatch, fate: signal.Signals
) -> None:
    others = children()
    stored = hasher.answer(["correct horse"])
    (pid,) = children() - others
    os.kill(pid, fate)
    monkeypatch.setattr(hashing, "PATIENCE_S", 0.01)
    assert hasher.answer(["correct horse", stored]) == [True, None]
    (other,) = children() - others
    assert os.getpriority(os.PRIO_PROCESS, other) == SHARE
    monkeypatch.setattr(hashing, "PATIENCE_S", 60.0)
    assert hasher.answer(["wrong horse", stored]) == [False, None]
    assert children() - others == {other}, "for a while it goes on so"
    monkeypatch.setattr(hasher, "_busy_until", 0.0)
    assert hasher.answer(["correct horse", stored]) == [True, None]
    (third,) = children() - others
    assert os.getpriority(os.PRIO_PROCESS, third) == LAST


def test_who_asks_hashes_alone_when_no_process_can_be_started(hasher: Hasher, monkeypatch: pytest.MonkeyPatch) -> None:
    others = children()
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    stored = hasher.answer(["correct horse"])
    assert hasher.answer(["correct horse", stored]) == Check(True)
    assert children() == others


async def test_a_dear_hash_is_made_by_a_process_and_a_cheap_one_is_not() -> None:
    others = children()
    for rounds, processes in ((9, 0), (10, 1)):
        dear = Passwords(rounds=rounds)
        stored = await dear.hash("correct horse")
        assert await dear.check("correct horse", stored) == Check(True)
        assert min(1, len(all_children() - others)) == processes
        dear.close()


def all_children() -> set[int]:
    """Return the children of every thread."""
    listed = [path.read_text().split() for path in Path("/proc/self/task").glob("*/children")]
    return {int(pid) for one in listed for pid in one}


def test_a_closed_hasher_answers_nobody_and_starts_nothing(hasher: Hasher) -> None:
    others = children()
    hasher.close()
    with pytest.raises(Unavailable, match="stops"):
        hasher.answer(["correct horse"])
    assert children() == others
