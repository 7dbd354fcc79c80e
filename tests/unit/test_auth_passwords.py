"""Passwords: nothing is truncated, foreign hashes are upgraded, the queue for threads is bounded."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import pytest
from argon2 import PasswordHasher

from taskflow_core import passwords
from taskflow_core.errors import Unavailable
from taskflow_core.hashing import Check, Hasher
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
def hasher() -> Iterator[Hasher]:
    hasher = Hasher(rounds=4, patience_s=60)
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
def test_who_asks_hashes_alone_when_the_process_cannot_and_later_has_another(
    hasher: Hasher, monkeypatch: pytest.MonkeyPatch, fate: signal.Signals
) -> None:
    others = children()
    stored = hasher.answer(["correct horse"])
    (pid,) = children() - others
    os.kill(pid, fate)
    monkeypatch.setattr(hasher, "_patience_s", 0.01)
    assert hasher.answer(["correct horse", stored]) == Check(True)
    assert hasher.answer(["wrong horse", stored]) == Check(False)
    assert children() == others
    monkeypatch.undo()
    monkeypatch.setattr(hasher, "_busy_until", 0.0)
    assert hasher.answer(["correct horse", stored]) == [True, None]
    assert pid not in children() - others


def test_a_closed_hasher_answers_nobody_and_starts_nothing(hasher: Hasher) -> None:
    others = children()
    hasher.close()
    with pytest.raises(Unavailable, match="stops"):
        hasher.answer(["correct horse"])
    assert children() == others
