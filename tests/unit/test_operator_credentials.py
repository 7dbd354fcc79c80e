"""What the operator makes of the addresses that a cluster's Secrets hold."""

import pytest

from taskflow_operator.credentials import seen_from_here


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
