"""Page cursors: opaque and signed, bound to the filter and the user they were made for.

base64url(id of the last row, 16 bytes | HMAC-SHA256 of id and filter, cut to 16 bytes).
"""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import fields
from uuid import UUID

import orjson

from taskflow_core.actors import Actor
from taskflow_core.errors import BadCursor, FieldProblem
from taskflow_core.keyring import Keyring
from taskflow_core.listing import TaskFilter

PURPOSE = "cursor"
ID_BYTES = 16
MAC_BYTES = 16
FILTERS = sorted(field.name for field in fields(TaskFilter))


def encode(last: UUID, filters: TaskFilter, actor: Actor, keyring: Keyring) -> str:
    """Return the cursor of the page that starts after `last`."""
    mac = keyring.mac(PURPOSE, _message(last.bytes, filters, actor))[:MAC_BYTES]
    return urlsafe_b64encode(last.bytes + mac).rstrip(b"=").decode()


def decode(cursor: str, filters: TaskFilter, actor: Actor, keyring: Keyring) -> UUID:
    """Return the id after which the page starts.

    Raises:
        BadCursor: it was not made here, was changed, or belongs to another filter or user.
    """
    try:
        raw = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    except (binascii.Error, ValueError):
        raise _bad() from None
    last, mac = raw[:ID_BYTES], raw[ID_BYTES:]
    if len(mac) != MAC_BYTES or not keyring.is_genuine(PURPOSE, _message(last, filters, actor), mac):
        raise _bad()
    return UUID(bytes=last)


def _message(last: bytes, filters: TaskFilter, actor: Actor) -> bytes:
    return last + actor.user_id.bytes + orjson.dumps({name: getattr(filters, name) for name in FILTERS})


def _bad() -> BadCursor:
    message = "take it from next_cursor of the page before, with the same filter"
    return BadCursor("the cursor does not belong to this list", [FieldProblem("cursor", message)])
