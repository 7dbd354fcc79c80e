"""A login tells nobody which accounts exist: the same answer, by the same work."""

import statistics
import time
from collections.abc import AsyncIterator

import bcrypt
import pytest

from api_app import Api, api_settings, running_api
from taskflow_core.hashing import Check
from taskflow_core.settings import Settings

ROUNDS = 8  # dear enough that the comparison is most of a login
TRIES = 9
WRONG = "not the password"
# A missing comparison would make the factor 5 and more; noise of a busy machine does not reach it.
FACTOR = 2.5


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Api]:
    async with running_api(api_settings(settings, bcrypt_rounds=ROUNDS)) as api:
        for name in ("known", "disabled"):
            await api.person(name)
        await api.sql("UPDATE users SET disabled_at = now() WHERE email = 'disabled@example.com'")
        yield api


@pytest.fixture
def comparisons(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the cost of each bcrypt computation as it is made."""
    made: list[int] = []
    compute = bcrypt.hashpw

    def counted(password: bytes, salt: bytes) -> bytes:
        made.append(int(salt.split(b"$")[2]))
        return compute(password, salt)

    monkeypatch.setattr(bcrypt, "hashpw", counted)
    return made


@pytest.mark.parametrize("name", ["known", "unknown", "disabled"])
async def test_a_refused_login_computes_one_hash_of_the_same_cost_whoever_it_names(
    api: Api, comparisons: list[int], name: str
) -> None:
    assert (await api.login(f"{name}@example.com", WRONG)).status_code == 401
    assert comparisons == [ROUNDS]


async def test_the_medians_of_the_time_of_a_check_are_alike(api: Api) -> None:
    passwords = api.resources.passwords
    stored = await passwords.hash("the password of somebody")
    medians = []
    for known in (stored, None):
        spent = []
        for _ in range(TRIES):
            before = time.process_time()
            assert await passwords.check(WRONG, known) == Check(False)
            spent.append(time.process_time() - before)
        medians.append(statistics.median(spent))
    assert max(medians) < FACTOR * min(medians)


async def test_the_answers_differ_by_nothing_but_their_request_id(api: Api) -> None:
    answers = [await api.login(f"{name}@example.com", WRONG) for name in ("known", "unknown", "disabled")]
    bodies = [answer.json() | {"request_id": ""} for answer in answers]
    headers = [{name: value for name, value in answer.headers.items() if name != "x-request-id"} for answer in answers]
    assert bodies[0] == bodies[1] == bodies[2]
    assert headers[0] == headers[1] == headers[2]
