"""Signatures of webhooks, as in Standard Webhooks 1.0.0 (symmetric): for the sender, and for receivers in Python.

HMAC-SHA256 over `id.timestamp.body`, base64, behind `v1,`; several signatures are separated by spaces.
"""

import binascii
import hmac
import secrets
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence

PREFIX = "whsec_"
SECRET_BYTES = 32
TOLERANCE_S = 300


class BadSignature(Exception):
    """The request was not sent by who shares the secret, or not just now."""


def new_secret() -> str:
    """Return a new secret of 256 random bits, as it is shown to a receiver."""
    return PREFIX + b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def sign(body: bytes, *, message_id: str, timestamp: int, secrets: Sequence[str]) -> dict[str, str]:
    """Return the headers that a request with that body carries; `timestamp` in Unix seconds, a signature a secret."""
    signatures = [_signature(secret, message_id, str(timestamp), body) for secret in secrets]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signatures),
    }


def verify(
    body: bytes, headers: Mapping[str, str], *, secret: str, now: float, tolerance_s: float = TOLERANCE_S
) -> str:
    """Return the webhook-id of a genuine request, to be handled once; `headers` by names in lower case.

    `body` is what came over the wire, before it is parsed; `now` in Unix seconds.

    Raises:
        BadSignature: a header is missing, the time is too far from now, or no signature is ours.
    """
    try:
        message_id, timestamp = headers["webhook-id"], headers["webhook-timestamp"]
        given = headers["webhook-signature"].split(" ")
        age_s = abs(now - int(timestamp))
    except (KeyError, ValueError) as error:
        raise BadSignature(f"the header is missing or no number: {error}") from None
    if age_s > tolerance_s:
        raise BadSignature(f"the request was sent more than {tolerance_s:g} s ago, or ahead")
    ours = _signature(secret, message_id, timestamp, body).encode()
    if not any(hmac.compare_digest(ours, one.encode()) for one in given):
        raise BadSignature("no signature is made with this secret")
    return message_id


def _signature(secret: str, message_id: str, timestamp: str, body: bytes) -> str:
    try:
        key = b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        raise ValueError(f"the secret must be {PREFIX} and base64") from None
    content = b".".join((message_id.encode(), timestamp.encode(), body))
    return "v1," + b64encode(hmac.digest(key, content, "sha256")).decode()
