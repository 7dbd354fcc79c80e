"""Reads the Secrets that a cluster names: says what is wrong with them, and stands for their content with a hash.

The hash ends up in the pods' annotations, which more people may read than Secrets: it is slow to make, salted with the
cluster's uid, and made once for each version of a Secret.
"""

import asyncio
import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from pydantic import SecretStr, TypeAdapter, ValidationError

from taskflow_core.settings import DatabaseUrl, LongSecret, RedisUrl
from taskflow_operator.kinds import Body
from taskflow_operator.manifests import COMPONENTS
from taskflow_operator.names import digest
from taskflow_operator.pods import optional_secrets_of, secrets_of
from taskflow_operator.secret_reads import FRESH_S, SecretReads
from taskflow_operator.spec import SecretKey, Spec

ROUNDS = 20_000
MENDED_S = 2.0  # a Secret that was of no use is read again at the next look, once for all that name it
FIELDS = {
    "TASKFLOW_DATABASE_URL": "spec.database.urlSecretRef",
    "TASKFLOW_REDIS_URL": "spec.redis.urlSecretRef",
}
KEYS_FIELD = "spec.auth.secretRef"
ADDRESSES: dict[str, TypeAdapter[SecretStr]] = {
    "TASKFLOW_DATABASE_URL": TypeAdapter(DatabaseUrl),
    "TASKFLOW_REDIS_URL": TypeAdapter(RedisUrl),
}
Stamp = list[tuple[str, str, str, str]]
SIGNING_KEY: TypeAdapter[SecretStr] = TypeAdapter(LongSecret)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a cluster's Secrets hold: a hash for each component, a sentence for each mistake, the address of Redis."""

    hashes: Mapping[str, str]
    missing: tuple[str, ...]
    redis_url: SecretStr | None


class CredentialReader:
    """Reads the Secrets of one cluster."""

    def __init__(self, secrets: SecretReads, namespace: str, uid: str) -> None:
        self._secrets = secrets
        self._namespace = namespace
        self._salt = uid.encode()
        self._hashes: dict[tuple[str, str], str] = {}
        self._generation = 0
        self._doubted: frozenset[str] = frozenset()
        self._made: tuple[Stamp, Credentials] | None = None

    async def read(self, spec: Spec, *, generation: int) -> Credentials:
        """Return what the Secrets hold: as they were within FRESH_S, those with mistakes within MENDED_S seconds.

        Another `generation` of the spec asks for all of them anew.

        Raises:
            ApiFailure: the API server does not answer, or forbids it.
        """
        required, optional = secrets_of(spec, "api"), optional_secrets_of(spec, "api")
        keys = {**required, **optional}
        names = sorted({key.name for key in keys.values()})
        same = generation == self._generation
        within_s = dict.fromkeys(self._doubted, MENDED_S) if same else dict.fromkeys(names, 0.0)
        asked = [self._secrets.ask(self._namespace, name, within_s=within_s.get(name, FRESH_S)) for name in names]
        found = dict(zip(names, await asyncio.gather(*asked), strict=True))
        stamp = [(variable, key.name, key.key, _version(found[key.name])) for variable, key in keys.items()]
        self._generation = generation
        if self._made is None or self._made[0] != stamp:
            self._made = stamp, await self._make(spec, found, keys, set(optional))
        return self._made[1]

    async def _make(
        self, spec: Spec, found: Mapping[str, Body | None], keys: Mapping[str, SecretKey], optional: set[str]
    ) -> Credentials:
        wrong: dict[str, str] = {}
        hashes, texts = {}, {}
        for variable, key in keys.items():
            text, mistake = _look(found[key.name], key, variable, optional=variable in optional)
            if mistake:
                wrong[mistake] = key.name
            texts[variable] = text
            hashes[variable] = await self._hash(found[key.name], key.key, text)
        self._doubted = frozenset(wrong.values())
        self._hashes = {known: value for known, value in self._hashes.items() if value in hashes.values()}
        used = {name: [*secrets_of(spec, name), *optional_secrets_of(spec, name)] for name in COMPONENTS}
        redis_url = texts["TASKFLOW_REDIS_URL"]
        return Credentials(
            hashes={name: digest([hashes[variable] for variable in variables]) for name, variables in used.items()},
            missing=tuple(wrong),
            redis_url=SecretStr(seen_from_here(redis_url.strip(), self._namespace)) if redis_url else None,
        )

    async def _hash(self, secret: Body | None, key: str, text: str) -> str:
        if secret is None or not text:
            return ""
        version = (_version(secret), key)
        if version not in self._hashes:
            made = await asyncio.to_thread(hashlib.pbkdf2_hmac, "sha256", text.encode(), self._salt, ROUNDS)
            self._hashes[version] = made.hex()[:32]
        return self._hashes[version]


def _version(secret: Body | None) -> str:
    """Return what stands for the content of a Secret; empty for none."""
    return f"{secret['metadata']['uid']}/{secret['metadata']['resourceVersion']}" if secret else ""


def seen_from_here(url: str, namespace: str) -> str:
    """Return an address of a cluster's pods as the operator, in another namespace, has to write it.

    A name without a dot is that of a Service beside the pods: `redis` becomes `redis.<namespace>.svc`.
    """
    parts = urlsplit(url)
    host = parts.hostname
    if not host or "." in host or ":" in host or host == "localhost":
        return url
    before, at, address = parts.netloc.rpartition("@")
    _, colon, port = address.partition(":")
    return urlunsplit(parts._replace(netloc=f"{before}{at}{host}.{namespace}.svc{colon}{port}"))


def _look(secret: Body | None, key: SecretKey, variable: str, *, optional: bool) -> tuple[str, str]:
    """Return the text behind a key, and what is wrong with it (empty: nothing)."""
    field = FIELDS.get(variable, KEYS_FIELD)
    if secret is None:
        return (
            "",
            "" if optional else f"Secret {key.name} does not exist, {field} names it: make it with the key {key.key}",
        )
    data: dict[str, Any] = secret.get("data") or {}
    if key.key not in data:
        there = ", ".join(sorted(data)) or "none"
        wrong = f"Secret {key.name} has no key {key.key}, which {field} needs (its keys: {there})"
        return "", "" if optional else wrong
    try:
        text = base64.b64decode(data[key.key], validate=True).decode().strip()
        ADDRESSES.get(variable, SIGNING_KEY).validate_python(text)
    except ValidationError as error:
        said = error.errors()[0]["msg"].removeprefix("Value error, ")
        return "", f"key {key.key} of Secret {key.name} ({field}) {said}"
    except (UnicodeDecodeError, binascii.Error):
        return "", f"key {key.key} of Secret {key.name} ({field}) must be text in UTF-8"
    return text, ""
