"""Who a bearer token speaks for, and whether they still may: the one gate of every request.

What PostgreSQL says about an account of the role USER and about its keys is believed for a few seconds, so that most
requests cost no look there; a change takes effect within them. OPERATOR and ADMIN are looked up at each request: what
reaches beyond one's own tasks ends at once.
"""

import time
from functools import partial
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import select
from sqlmodel import col

from taskflow_core import api_keys, scopes
from taskflow_core.api_keys import FoundKey
from taskflow_core.database import Sessions
from taskflow_core.errors import InvalidToken
from taskflow_core.memory import ShortMemory
from taskflow_core.models.users import Role, User
from taskflow_core.sharing import Shared
from taskflow_core.tokens import AccessTokens, Identity

MAX_REMEMBERED = 10_000


class Standing(NamedTuple):
    """What an access token must agree with."""

    role: Role
    token_version: int
    active: bool


GONE = Standing(Role.USER, 0, active=False)


class Admission:
    """Identifies bearers. Believes what it saw of USERs for `remembered_s` seconds."""

    def __init__(self, tokens: AccessTokens, sessions: Sessions, *, remembered_s: float) -> None:
        self._tokens = tokens
        self._sessions = sessions
        self._accounts: ShortMemory[UUID, Standing] = ShortMemory(seconds=remembered_s, most=MAX_REMEMBERED)
        self._keys: ShortMemory[bytes, FoundKey] = ShortMemory(seconds=remembered_s, most=MAX_REMEMBERED)
        # When a memory ends, all requests of that account ask at once.
        self._asked_accounts: Shared[Standing] = Shared()
        self._asked_keys: Shared[FoundKey | None] = Shared()

    async def identify(self, token: str, *, method: str, path: str) -> Identity:
        """Return whom an access token or API key speaks for, if they may send this method to this routed path.

        Raises:
            InvalidToken: it is not valid, or no longer.
            Forbidden: it is an API key, and none may do this.
            InsufficientScope: it is an API key, and this one may not.
        """
        if token.startswith(api_keys.PREFIX):
            key = await self._find_key(token)
            scopes.check(key.scopes, method=method, path=path)
            return Identity(key.owner, key.token_version, key.expires_at.timestamp(), key_id=key.key_id)
        identity = self._tokens.verify(token)
        await self.check(identity)
        return identity

    async def check(self, identity: Identity) -> None:
        """Let an identity of an access token pass that still holds; for whoever stays longer than a request.

        Raises:
            InvalidToken: the account is disabled, has another role, or all its tokens were ended.
        """
        standing = self._remembered(identity) or await self._look(identity.actor.user_id)
        if standing != (identity.actor.role, identity.token_version, True):
            raise InvalidToken("the access token no longer holds; log in again")

    def forget_account(self, user_id: UUID) -> None:
        """Look an account up anew: it was changed here."""
        self._accounts.forget(user_id)

    def forget_key(self, key_hash: bytes) -> None:
        """Look a key up anew: it was revoked here."""
        self._keys.forget(key_hash)

    def _remembered(self, identity: Identity) -> Standing | None:
        if identity.actor.role is not Role.USER:
            return None
        known = self._accounts.get(identity.actor.user_id)
        # A version that is newer than the known one was issued after we looked.
        return None if known is None or known.token_version < identity.token_version else known

    async def _look(self, user_id: UUID) -> Standing:
        return await self._asked_accounts.ask(user_id, partial(self._read, user_id))

    async def _read(self, user_id: UUID) -> Standing:
        asked_at = time.monotonic()
        columns = (col(User.role), col(User.token_version), col(User.disabled_at).is_(None))
        async with self._sessions() as session:
            row = (await session.execute(select(*columns).where(col(User.id) == user_id))).one_or_none()
        standing = GONE if row is None else Standing(Role(row[0]), row[1], row[2])
        self._accounts.put(user_id, standing, asked_at=asked_at)
        return standing

    async def _find_key(self, token: str) -> FoundKey:
        if api_keys.FORM.fullmatch(token) is None:
            raise _bad_key()
        key_hash = api_keys.digest(token)
        key = self._keys.get(key_hash) or await self._asked_keys.ask(key_hash, partial(self._read_key, key_hash))
        if key is None or key.expires_at.timestamp() <= time.time():
            raise _bad_key()
        return key

    async def _read_key(self, key_hash: bytes) -> FoundKey | None:
        asked_at = time.monotonic()
        async with self._sessions() as session:
            key = await api_keys.find(session, key_hash)
            await session.commit()
        if key is not None and key.owner.role is Role.USER:
            self._keys.put(key_hash, key, asked_at=asked_at)
        return key


def _bad_key() -> InvalidToken:
    return InvalidToken("the API key is not valid: it is unknown, expired or revoked, or its owner is disabled")
