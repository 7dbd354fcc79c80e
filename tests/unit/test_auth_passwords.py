"""Passwords: nothing is truncated, foreign hashes are upgraded, the queue for threads is bounded."""

import asyncio
from collections.abc import Iterator

import bcrypt
import pytest
from argon2 import PasswordHasher

from taskflow_core import passwords
from taskflow_core.errors import Unavailable
from taskflow_core.passwords import Check, Passwords


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
