"""The server's secrets: the first signs, every one verifies, so that a secret can be replaced without a cut."""

import hashlib
import hmac
from collections.abc import Sequence

KID_LENGTH = 16
MIN_MAC_BYTES = 16


class Keyring:
    """One or two secrets, newest first. Messages carry their purpose, so a MAC made for one never serves another."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        self._secrets = tuple(secrets)
        self._by_kid = {_kid(secret): secret for secret in reversed(self._secrets)}

    @property
    def signing_key(self) -> tuple[str, bytes]:
        """The id of the newest secret, and the secret."""
        return _kid(self._secrets[0]), self._secrets[0]

    def key(self, kid: object) -> bytes | None:
        """Return the secret of that id, or None when it is not ours."""
        return self._by_kid.get(kid) if isinstance(kid, str) else None

    def mac(self, purpose: str, message: bytes) -> bytes:
        """Return the 32-byte HMAC-SHA256 of the message under the newest secret."""
        return _mac(self._secrets[0], purpose, message)

    def macs(self, purpose: str, message: bytes) -> list[bytes]:
        """Return the MAC under each secret, newest first."""
        return [_mac(secret, purpose, message) for secret in self._secrets]

    def is_genuine(self, purpose: str, message: bytes, mac: bytes) -> bool:
        """Whether the MAC, or the prefix of one, was made by one of our secrets."""
        return len(mac) >= MIN_MAC_BYTES and any(
            hmac.compare_digest(ours[: len(mac)], mac) for ours in self.macs(purpose, message)
        )


def _kid(secret: bytes) -> str:
    return hashlib.sha256(b"taskflow-kid\0" + secret).hexdigest()[:KID_LENGTH]


def _mac(secret: bytes, purpose: str, message: bytes) -> bytes:
    return hmac.digest(secret, purpose.encode() + b"\0" + message, "sha256")
