"""Access tokens: short-lived JWTs (RFC 7519, profile RFC 9068) that name the user, the role and the token version."""

import time
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import jwt

from taskflow_core.actors import Actor
from taskflow_core.errors import InvalidToken
from taskflow_core.keyring import Keyring
from taskflow_core.models.users import Role, User

ALGORITHM = "HS256"
TYPE = "at+jwt"
LEEWAY_S = 10
MAX_TOKEN_CHARACTERS = 4096
MAX_CACHED = 10_000
CLAIMS = ("iss", "aud", "sub", "exp", "nbf", "iat", "jti", "role", "tv")


class Identity(NamedTuple):
    """What a verified access token says; of an API key, `key_id` is set instead of `session_id`."""

    actor: Actor
    token_version: int
    expires_at: float
    session_id: UUID | None = None
    key_id: UUID | None = None


class AccessTokens:
    """Issues access tokens and verifies them; a verified one is remembered until it expires (bounded)."""

    def __init__(self, keyring: Keyring, *, issuer: str, audience: str, ttl_s: int) -> None:
        self.ttl_s = ttl_s
        self._keyring = keyring
        self._issuer = issuer
        self._audience = audience
        self._verified: dict[str, Identity] = {}

    def issue(self, user: User, *, session_id: UUID) -> str:
        """Return a token for the user, valid for `ttl_s` seconds; `session_id` is the family of its refresh token."""
        kid, secret = self._keyring.signing_key
        now = int(time.time())
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": str(user.id),
            "iat": now,
            "nbf": now,
            "exp": now + self.ttl_s,
            "jti": str(uuid4()),
            "role": str(user.role),
            "tv": user.token_version,
            "sid": str(session_id),
        }
        return jwt.encode(claims, secret, algorithm=ALGORITHM, headers={"typ": TYPE, "kid": kid})

    def verify(self, token: str) -> Identity:
        """Return whom the token names.

        Raises:
            InvalidToken: it is malformed, expired, not yet valid, of another kind, or signed by another key.
        """
        identity = self._verified.get(token)
        if identity is None:
            identity = self._decode(token)
            if len(self._verified) >= MAX_CACHED:
                self._verified.pop(next(iter(self._verified)))
            self._verified[token] = identity
        if identity.expires_at + LEEWAY_S <= time.time():
            self._verified.pop(token, None)
            raise InvalidToken("the access token has expired")
        return identity

    def _decode(self, token: str) -> Identity:
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise InvalidToken("the access token is too long")
        try:
            header = jwt.get_unverified_header(token)
            secret = self._keyring.key(header.get("kid"))
            if secret is None or header.get("typ") != TYPE:
                raise InvalidToken("the access token was not issued here")
            return _identity(self._claims(token, secret))
        except jwt.ExpiredSignatureError:
            raise InvalidToken("the access token has expired") from None
        # RecursionError: the JSON of an unverified header may be nested as deep as its bytes allow.
        except (jwt.PyJWTError, ValueError, OverflowError, RecursionError):
            raise InvalidToken("the access token is not valid") from None

    def _claims(self, token: str, secret: bytes) -> dict[str, Any]:
        return jwt.decode(
            token,
            secret,
            algorithms=[ALGORITHM],
            audience=self._audience,
            issuer=self._issuer,
            leeway=LEEWAY_S,
            options={"require": list(CLAIMS)},
        )


def _identity(claims: dict[str, Any]) -> Identity:
    version = claims["tv"]
    if type(version) is not int:
        raise InvalidToken("the access token is not valid")
    session_id = UUID(str(claims["sid"])) if "sid" in claims else None  # tokens of the version before have none
    return Identity(Actor(UUID(claims["sub"]), Role(claims["role"])), version, float(claims["exp"]), session_id)
