"""Access tokens: what is issued is accepted, and nothing else is."""

import hmac
import json
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from taskflow_core import tokens
from taskflow_core.errors import InvalidToken
from taskflow_core.identifiers import new_id
from taskflow_core.keyring import Keyring
from taskflow_core.models.users import Role, User
from taskflow_core.tokens import AccessTokens

SECRET, OTHER, OLD = b"s" * 64, b"o" * 64, b"p" * 64
SESSION = new_id()
USER = User(id=new_id(), email="ada@example.com", password_hash="", role=Role.OPERATOR, token_version=3)


def issuer(*secrets: bytes, ttl_s: int = 900) -> AccessTokens:
    return AccessTokens(Keyring(secrets or [SECRET]), issuer="taskflow", audience="taskflow-api", ttl_s=ttl_s)


def forged(
    change: Callable[[dict[str, Any]], object] = lambda _: None,
    *,
    secret: bytes = SECRET,
    algorithm: str = "HS256",
    **header: object,
) -> str:
    """Return a token like ours with a few things changed."""
    claims = jwt.decode(issuer().issue(USER, session_id=SESSION), options={"verify_signature": False})
    change(claims)
    headers = {"typ": "at+jwt", "kid": Keyring([SECRET]).signing_key[0]} | header
    return jwt.encode(claims, secret, algorithm=algorithm, headers=headers)


def unsigned(token: str) -> str:
    """Return the token with "alg": "none" and without its signature."""
    _, claims, _ = token.split(".")
    header = {"alg": "none", "typ": "at+jwt", "kid": Keyring([SECRET]).signing_key[0]}
    return urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode() + f".{claims}."


def encoded(part: object) -> str:
    return urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def decoded(part: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(urlsafe_b64decode(part + "=="))
    return found


def header_changed(*, secret: bytes = SECRET, **changes: object) -> str:
    """Return the token with another header, and the signature of a secret, ours by default, over it."""
    header, claims, _ = forged().split(".")
    signed = f"{encoded(decoded(header) | changes)}.{claims}"
    signature = urlsafe_b64encode(hmac.digest(secret, signed.encode(), "sha256")).rstrip(b"=").decode()
    return f"{signed}.{signature}"


def tampered() -> str:
    """Return the token of an OPERATOR as an ADMIN's, under the signature it had."""
    header, claims, signature = forged().split(".")
    return f"{header}.{encoded(decoded(claims) | {'role': 'ADMIN'})}.{signature}"


def asymmetric(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, algorithm: str) -> str:
    """Return a token that names our kid and is signed by a key pair of the attacker's."""
    _, claims, _ = forged().split(".")
    headers = {"typ": "at+jwt", "kid": Keyring([SECRET]).signing_key[0]}
    return jwt.encode(decoded(claims), key, algorithm=algorithm, headers=headers)


def test_a_token_names_its_user_role_and_version() -> None:
    identity = issuer().verify(issuer().issue(USER, session_id=SESSION))
    assert (identity.actor.user_id, identity.actor.role, identity.token_version) == (USER.id, Role.OPERATOR, 3)


def test_a_token_of_the_version_before_has_no_session_and_is_accepted() -> None:
    assert issuer().verify(forged()).session_id == SESSION
    assert issuer().verify(forged(lambda claims: claims.pop("sid"))).session_id is None


def test_two_tokens_of_one_user_differ() -> None:
    assert issuer().issue(USER, session_id=SESSION) != issuer().issue(USER, session_id=SESSION)


def test_a_forgery_that_changes_nothing_is_accepted_so_the_others_fail_for_their_reason() -> None:
    assert issuer().verify(forged()).actor.user_id == USER.id


@pytest.mark.parametrize("claim", tokens.CLAIMS)
def test_a_token_without_a_claim_is_refused(claim: str) -> None:
    with pytest.raises(InvalidToken):
        issuer().verify(forged(lambda claims: claims.pop(claim)))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"iss": "someone"}, id="another issuer"),
        pytest.param({"aud": "something"}, id="another audience"),
        pytest.param({"exp": 1}, id="expired"),
        pytest.param({"exp": int(time.time()) - tokens.LEEWAY_S - 1}, id="expired beyond the leeway"),
        pytest.param({"nbf": int(time.time()) + 3600}, id="not yet valid"),
        pytest.param({"iat": int(time.time()) + 3600}, id="issued in the future"),
        pytest.param({"exp": float("inf")}, id="expires never"),
        pytest.param({"exp": "soon"}, id="exp is text"),
        pytest.param({"sub": "ada"}, id="sub is no id"),
        pytest.param({"sub": 7}, id="sub is a number"),
        pytest.param({"role": "ROOT"}, id="an unknown role"),
        pytest.param({"sid": "x"}, id="sid is no id"),
        pytest.param({"sid": 7}, id="sid is a number"),
        pytest.param({"aud": ["taskflow-api", 7]}, id="aud holds a number"),
        pytest.param({"tv": "3"}, id="tv is text"),
        pytest.param({"tv": True}, id="tv is a bool"),
    ],
)
def test_a_token_with_a_wrong_claim_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(InvalidToken):
        issuer().verify(forged(lambda claims: claims.update(change)))


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(forged(secret=OTHER), id="signed by another secret under our kid"),
        pytest.param(forged(kid="unknown"), id="unknown kid"),
        pytest.param(forged(kid=""), id="empty kid"),
        pytest.param(header_changed(secret=b"", kid="/dev/null"), id="kid the path of an empty file"),
        pytest.param(header_changed(secret=b"", kid="../../../../dev/null"), id="kid a relative path"),
        pytest.param(forged(secret=OTHER, kid="' UNION SELECT 'o"), id="kid an SQL injection"),
        pytest.param(forged(secret=OTHER, kid="https://example.org/keys"), id="kid an address"),
        pytest.param(forged(secret=OTHER, jwk={"kty": "oct", "k": "b28"}), id="the key in the header"),
        pytest.param(forged(secret=OTHER, jku="https://example.org/keys"), id="the key's address in the header"),
        pytest.param(forged(secret=OTHER, x5u="https://example.org/cert"), id="a certificate's address in the header"),
        pytest.param(forged(secret=OTHER, kid=Keyring([OTHER]).signing_key[0]), id="a kid that fits another's secret"),
        pytest.param(forged(crit=["exp"]), id="an extension that must be understood"),
        pytest.param(
            asymmetric(rsa.generate_private_key(65537, 2048), "RS256"), id="signed with an RSA key of the attacker's"
        ),
        pytest.param(
            asymmetric(ec.generate_private_key(ec.SECP256R1()), "ES256"), id="signed with an EC key of the attacker's"
        ),
        pytest.param(header_changed(alg="RS256"), id="HS256 called RS256"),
        pytest.param(header_changed(alg="NONE"), id="alg NONE"),
        pytest.param(header_changed(alg=["HS256"]), id="alg a list"),
        pytest.param(tampered(), id="another role under the old signature"),
        pytest.param(forged().replace(".", ".."), id="an empty part"),
        pytest.param(forged(typ="JWT"), id="another typ"),
        pytest.param(forged(algorithm="HS512"), id="another algorithm of the same key"),
        pytest.param(unsigned(forged()), id="alg none"),
        pytest.param(forged()[:-2], id="cut short"),
        pytest.param(forged() + "x" * 5000, id="too long"),
        pytest.param("", id="empty"),
        pytest.param("a.b.c", id="no JSON"),
        pytest.param(urlsafe_b64encode(b"[" * 2500).decode() + ".e30.AA", id="a header nested 2,500 deep"),
        pytest.param(urlsafe_b64encode(b'{"alg":"HS256","kid":[1]}').decode() + ".e30.AA", id="kid a list"),
    ],
)
def test_a_token_that_is_not_ours_is_refused(token: str) -> None:
    with pytest.raises(InvalidToken):
        issuer().verify(token)


def test_an_old_secret_is_accepted_while_it_is_in_the_keyring_and_no_longer() -> None:
    token = issuer(OLD).issue(USER, session_id=SESSION)
    assert issuer(SECRET, OLD).verify(token).actor.user_id == USER.id
    with pytest.raises(InvalidToken):
        issuer(SECRET).verify(token)
    fresh = issuer(SECRET, OLD).issue(USER, session_id=SESSION)
    assert issuer(SECRET).verify(fresh).actor.user_id == USER.id


def test_a_remembered_token_still_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = issuer(ttl_s=60)
    token = ours.issue(USER, session_id=SESSION)
    ours.verify(token)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 60 + tokens.LEEWAY_S + 1)
    with pytest.raises(InvalidToken, match="expired"):
        ours.verify(token)


def test_the_memory_of_verified_tokens_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MAX_CACHED", 3)
    ours = issuer()
    issued = [ours.issue(USER, session_id=SESSION) for _ in range(5)]
    for token in issued:
        ours.verify(token)
    assert list(ours._verified) == issued[-3:]


def test_a_mac_serves_its_purpose_and_message_alone() -> None:
    keyring = Keyring([SECRET, OLD])
    mac = Keyring([OLD]).mac("cursor", b"message")
    assert keyring.is_genuine("cursor", b"message", mac)
    assert keyring.is_genuine("cursor", b"message", mac[:16])
    assert not keyring.is_genuine("other", b"message", mac)
    assert not keyring.is_genuine("cursor", b"messagf", mac)
    assert not keyring.is_genuine("cursor", b"message", mac[:15])
    assert not keyring.is_genuine("cursor", b"message", b"")
    assert not Keyring([SECRET]).is_genuine("cursor", b"message", mac)
