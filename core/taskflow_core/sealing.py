"""Secrets that the database keeps: encrypted with a key that it never sees, and bound to the row they belong to.

AES-256-GCM (NIST SP 800-38D) with a random nonce of 96 bits. A sealed value is id of the key (8 bytes) | nonce (12) |
ciphertext and tag. The key is derived from the setting by HMAC-SHA256, and its id from the key.
"""

import hashlib
import os
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from taskflow_core.keyring import Keyring
from taskflow_core.settings import WebhookSettings

ID_BYTES = 8
NONCE_BYTES = 12
PURPOSE = "webhook secrets"


class CannotUnseal(Exception):
    """The value was sealed with another key, belongs to another row, or was changed."""


class Sealer:
    """One or two keys, newest first: the first seals, each opens what it sealed."""

    def __init__(self, secrets: list[bytes]) -> None:
        keys = Keyring(secrets).macs(PURPOSE, b"key")
        self._keys = {hashlib.sha256(PURPOSE.encode() + key).digest()[:ID_BYTES]: AESGCM(key) for key in keys}

    @property
    def key_id(self) -> bytes:
        """The id of the key that seals; what starts with another was sealed before."""
        return next(iter(self._keys))

    def seal(self, value: bytes, *, row: UUID) -> bytes:
        """Return the value encrypted for that row."""
        nonce = os.urandom(NONCE_BYTES)
        return self.key_id + nonce + self._keys[self.key_id].encrypt(nonce, value, row.bytes)

    def unseal(self, sealed: bytes, *, row: UUID) -> bytes:
        """Return the value.

        Raises:
            CannotUnseal: its key is not ours any more, or it is not of that row.
        """
        key = self._keys.get(sealed[:ID_BYTES])
        nonce, secret = sealed[ID_BYTES : ID_BYTES + NONCE_BYTES], sealed[ID_BYTES + NONCE_BYTES :]
        if key is None:
            raise CannotUnseal("it was sealed with a key that is not set here")
        try:
            return key.decrypt(nonce, secret, row.bytes)
        except (InvalidTag, ValueError):
            raise CannotUnseal("it was changed, or belongs to another row") from None


def sealer_of(settings: WebhookSettings) -> Sealer | None:
    """Return what seals with the keys of the settings, or None when there is none: webhooks are off."""
    if settings.webhook_key is None:
        return None
    keys = (settings.webhook_key, settings.webhook_previous_key)
    return Sealer([key.get_secret_value().encode() for key in keys if key is not None])
