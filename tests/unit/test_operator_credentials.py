"""How often the operator reads a cluster's Secrets, and what it makes of the addresses that they hold."""

import asyncio
import base64
from collections import Counter
from typing import cast

import pytest
from pydantic import SecretStr

from operator_world import spec_of
from taskflow_operator import credentials, secret_reads
from taskflow_operator.cluster import ApiFailure, KubernetesApi
from taskflow_operator.credentials import CredentialReader, seen_from_here
from taskflow_operator.kinds import Body, Kind
from taskflow_operator.secret_reads import SecretReads


@pytest.mark.parametrize(
    ("written", "seen"),
    [
        ("redis://redis:6379/0", "redis://redis.shop.svc:6379/0"),
        ("redis://redis", "redis://redis.shop.svc"),
        ("rediss://user:p%40ss@redis:6379/0?x=1", "rediss://user:p%40ss@redis.shop.svc:6379/0?x=1"),
        ("redis://:a:b@redis:6379", "redis://:a:b@redis.shop.svc:6379"),
        ("redis://redis.data:6379/0", "redis://redis.data:6379/0"),
        ("redis://10.0.0.7:6379/0", "redis://10.0.0.7:6379/0"),
        ("redis://[fd00::7]:6379/0", "redis://[fd00::7]:6379/0"),
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
    ],
)
def test_a_service_beside_the_pods_is_found_from_another_namespace(written: str, seen: str) -> None:
    assert seen_from_here(written, "shop") == seen


class Answers:
    """Counts what it is asked for; stands in for an API server that holds some Secrets."""

    def __init__(self, **held: dict[str, str]) -> None:
        self.held = held
        self.asked: Counter[str] = Counter()
        self.fails = False

    async def get(self, _kind: Kind, _namespace: str, name: str) -> Body | None:
        """Return a Secret whose version is what it holds."""
        self.asked[name] += 1
        await asyncio.sleep(0)
        if self.fails:
            raise ApiFailure(500, "InternalError", "by the test")
        data = self.held.get(name)
        if data is None:
            return None
        encoded = {key: base64.b64encode(text.encode()).decode() for key, text in data.items()}
        return {"metadata": {"uid": name, "resourceVersion": str(data)}, "data": encoded}


@pytest.fixture
def answers() -> Answers:
    return Answers(
        postgres={"url": "postgresql://u:p@db/x"}, redis={"url": "redis://r:6379/0"}, jwt={"jwt-secret": "j" * 40}
    )


def readers(answers: Answers, count: int) -> list[CredentialReader]:
    secrets = SecretReads(cast("KubernetesApi", answers))
    return [CredentialReader(secrets, "shop", f"uid-{number}") for number in range(count)]


async def test_clusters_that_name_the_same_secrets_read_each_once_between_them(answers: Answers) -> None:
    first, second = readers(answers, 2)
    made = await asyncio.gather(first.read(spec_of(), generation=1), second.read(spec_of(), generation=1))
    assert await first.read(spec_of(), generation=1) is made[0], "nothing is reckoned again while nothing changed"
    assert answers.asked == {"postgres": 2, "redis": 2, "jwt": 2}, "a spec that is new asks for itself"
    await asyncio.gather(*(reader.read(spec_of(), generation=1) for reader in (first, second) for _ in range(5)))
    assert answers.asked == {"postgres": 2, "redis": 2, "jwt": 2}
    assert made[0].hashes != made[1].hashes, "a hash is salted with the cluster"


async def test_a_rotated_secret_is_seen_when_the_last_read_is_too_old_and_at_once_with_a_new_spec(
    answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    (reader,) = readers(answers, 1)
    before = await reader.read(spec_of(), generation=1)
    answers.held["redis"] = {"url": "redis://other:6379/0"}
    assert await reader.read(spec_of(), generation=1) is before
    changed = await reader.read(spec_of(), generation=2)
    assert changed.redis_url == SecretStr("redis://other.shop.svc:6379/0")
    answers.held["redis"] = {"url": "redis://third:6379/0"}
    monkeypatch.setattr(secret_reads, "FRESH_S", 0.0)
    reader = readers(answers, 1)[0]
    await reader.read(spec_of(), generation=1)
    answers.held["redis"] = {"url": "redis://fourth:6379/0"}
    assert (await reader.read(spec_of(), generation=1)).redis_url == SecretStr("redis://fourth.shop.svc:6379/0")


async def test_only_the_secret_that_is_wrong_is_read_again_soon(
    answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "MENDED_S", 0.0)
    del answers.held["jwt"]
    (reader,) = readers(answers, 1)
    assert (await reader.read(spec_of(), generation=1)).missing == (
        "Secret jwt does not exist, spec.auth.secretRef names it: make it with the key jwt-secret",
    )
    answers.held["jwt"] = {"jwt-secret": "j" * 40}
    assert (await reader.read(spec_of(), generation=1)).missing == ()
    assert answers.asked == {"postgres": 1, "redis": 1, "jwt": 2}


async def test_a_read_that_failed_is_tried_again_by_the_next_look(answers: Answers) -> None:
    (reader,) = readers(answers, 1)
    answers.fails = True
    with pytest.raises(ApiFailure):
        await reader.read(spec_of(), generation=1)
    answers.fails = False
    assert (await reader.read(spec_of(), generation=1)).missing == ()
