"""The pure parts of webhooks: signatures, sealed secrets, waits, bounds."""

from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskflow_core.addresses import AllowList
from taskflow_core.deliveries import BACKOFF_BASE_S, BACKOFF_CAP_S, Candidate, backoff_s, within_bounds
from taskflow_core.errors import Invalid
from taskflow_core.sealing import CannotUnseal, Sealer
from taskflow_core.signatures import BadSignature, new_secret, sign, verify
from taskflow_core.webhook_urls import UrlRules
from taskflow_core.webhooks import GIVE_UP

OLD, NEW = b"o" * 32, b"n" * 32
BODY = b'{"test": 2432232314}'
# The example that libraries of Standard Webhooks are tried with.
KNOWN = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}
KNOWN_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SENT_AT = 1614265330


def test_a_signature_is_that_of_the_standards_libraries() -> None:
    made = sign(BODY, message_id=KNOWN["webhook-id"], timestamp=SENT_AT, secrets=[KNOWN_SECRET])
    assert made == KNOWN
    assert verify(BODY, KNOWN, secret=KNOWN_SECRET, now=SENT_AT + 299) == KNOWN["webhook-id"]


def test_while_a_secret_is_replaced_both_verify() -> None:
    before, after = new_secret(), new_secret()
    headers = sign(BODY, message_id="m", timestamp=SENT_AT, secrets=[after, before])
    for secret in (before, after):
        assert verify(BODY, headers, secret=secret, now=SENT_AT) == "m"


@pytest.mark.parametrize(
    ("body", "changes", "now"),
    [
        pytest.param(BODY + b" ", {}, SENT_AT, id="another body"),
        pytest.param(BODY, {"webhook-id": "msg_other"}, SENT_AT, id="another id"),
        pytest.param(BODY, {"webhook-timestamp": "1614265331"}, SENT_AT, id="another time"),
        pytest.param(BODY, {"webhook-timestamp": "now"}, SENT_AT, id="no time"),
        pytest.param(BODY, {"webhook-signature": ""}, SENT_AT, id="no signature"),
        pytest.param(BODY, {"webhook-signature": "v2," + KNOWN["webhook-signature"][3:]}, SENT_AT, id="v2"),
        pytest.param(BODY, {"webhook-signature": "é"}, SENT_AT, id="no ASCII"),
        pytest.param(BODY, {}, SENT_AT + 301, id="too late"),
        pytest.param(BODY, {}, SENT_AT - 301, id="too early"),
    ],
)
def test_what_was_changed_or_comes_too_late_is_refused(body: bytes, changes: dict[str, str], now: float) -> None:
    with pytest.raises(BadSignature):
        verify(body, KNOWN | changes, secret=KNOWN_SECRET, now=now)


def test_a_request_without_the_headers_is_refused() -> None:
    with pytest.raises(BadSignature, match="webhook-id"):
        verify(BODY, {}, secret=KNOWN_SECRET, now=SENT_AT)


@given(st.binary(max_size=200))
def test_a_sealed_secret_opens_for_its_row_with_the_key_of_before_too(secret: bytes) -> None:
    row = uuid4()
    sealed = Sealer([OLD]).seal(secret, row=row)
    assert Sealer([NEW, OLD]).unseal(sealed, row=row) == secret
    assert not sealed.startswith(Sealer([NEW, OLD]).key_id)
    assert len(secret) < 4 or secret not in sealed


@pytest.mark.parametrize("place", [0, 8, 20, -1])
def test_a_sealed_secret_that_was_changed_does_not_open(place: int) -> None:
    row, sealer = uuid4(), Sealer([NEW])
    sealed = bytearray(sealer.seal(b"secret", row=row))
    sealed[place] ^= 1
    with pytest.raises(CannotUnseal):
        sealer.unseal(bytes(sealed), row=row)


def test_a_sealed_secret_opens_neither_for_another_row_nor_with_another_key_nor_cut() -> None:
    row = uuid4()
    sealed = Sealer([OLD]).seal(b"secret", row=row)
    for sealer, value, of in ((Sealer([OLD]), sealed, uuid4()), (Sealer([NEW]), sealed, row)):
        with pytest.raises(CannotUnseal):
            sealer.unseal(value, row=of)
    for length in range(len(sealed)):
        with pytest.raises(CannotUnseal):
            Sealer([OLD]).unseal(sealed[:length], row=row)


def test_two_seals_of_one_secret_differ() -> None:
    row, sealer = uuid4(), Sealer([NEW])
    assert sealer.seal(b"secret", row=row) != sealer.seal(b"secret", row=row)


@given(st.floats(0, 90_000), st.floats(0, 1))
def test_a_wait_is_bounded_and_as_long_as_the_delivery_was_tried(tried_s: float, spread: float) -> None:
    wait_s = backoff_s(tried_s, spread=spread)
    assert BACKOFF_BASE_S / 2 <= wait_s <= BACKOFF_CAP_S
    assert wait_s <= max(BACKOFF_BASE_S, tried_s)


@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0])
def test_a_day_of_attempts_is_a_few_dozen(spread: float) -> None:
    tried_s, attempts = 0.0, 1
    while (tried_s := tried_s + backoff_s(tried_s, spread=spread)) < GIVE_UP.total_seconds():
        attempts += 1
    assert 15 <= attempts <= 45


def test_no_host_gets_more_than_its_share() -> None:
    due = [Candidate(uuid4(), uuid4(), host) for host in ("a", "a", "a", "b", "a", "c", "c")]
    chosen = within_bounds(due, hosts={"a": 1, "c": 2}, host=2, room=5)
    assert [one.host for one in chosen] == ["a", "b"]
    assert len(within_bounds(due, hosts={}, host=9, room=3)) == 3


REFUSED = [
    "http://example.com/", "ftp://example.com/", "javascript:alert(1)", "https://", "//example.com/", "example.com",
    "https://user:pass@example.com/", "https://user@example.com/", "https://example.com@10.0.0.1/", "https://127.0.0.1/",
    "https://127.1/", "https://2130706433/", "https://0x7f000001/", "https://0x7f.1/", "https://127.0.0.1./",
    "https://localhost/", "https://LOCALHOST./", "https://a.localhost/", "https://[::1]/", "https://[::ffff:10.0.0.1]/",
    "https://[::]/", "https://0/", "https://10.1.2.3:8443/", "https://169.254.169.254/", "https://[fd00:ec2::254]/",
    "https://100.64.0.1/", "https://[64:ff9b::a00:1]/", "https://127。0。0。1/", "https://①②⑦.0.0.1/", "https://a b/",
    "https://example.com:99999/", "https://example.com:x/", "https://[::1",
    "https://example.com:0/", "https://[fe80::1%25eth0]/", "https://a%2eb/",
]  # fmt: skip


@pytest.mark.parametrize("url", REFUSED)
def test_a_url_that_a_webhook_may_not_have_is_refused_by_its_field(url: str) -> None:
    with pytest.raises(Invalid) as refused:
        UrlRules(AllowList(), allow_http=False).check(url)
    assert [field for field, _ in refused.value.fields] == ["url"]


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://example.com/hook?a=b#c", "https://example.com/hook?a=b"),
        ("https://EXAMPLE.com:8443", "https://example.com:8443"),
        ("https://1.1.1.1/", "https://1.1.1.1/"),
        ("https://bücher.example/", "https://xn--bcher-kva.example/"),
    ],
)
def test_a_url_is_kept_as_it_will_be_called(url: str, kept: str) -> None:
    assert UrlRules(AllowList(), allow_http=False).check(url) == kept


def test_an_operator_opens_http_and_private_hosts() -> None:
    rules = UrlRules(AllowList.parse("127.0.0.1:9000,10.1.0.0/16"), allow_http=True)
    assert rules.check("http://127.0.0.1:9000/hook") == "http://127.0.0.1:9000/hook"
    assert rules.check("http://localhost:9000/") == "http://localhost:9000/"
    assert rules.check("https://10.1.2.3/")
    with pytest.raises(Invalid):
        rules.check("http://127.0.0.1:9001/hook")
