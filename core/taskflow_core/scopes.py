"""Scopes of API keys: `<resource>:read` and `<resource>:write`, and which of them a request needs.

A resource is the first part of a path behind /api/v1. What is not in the vocabulary, such as auth, api-keys and admin,
is open to no key.
"""

import re

from taskflow_core.errors import Forbidden, InsufficientScope

RESOURCES = ("tasks", "task-types", "schedules", "queues", "workers", "webhooks", "stats", "events")
SCOPES = tuple(f"{resource}:{access}" for resource in RESOURCES for access in ("read", "write"))
READS = frozenset({"GET", "HEAD"})
RESOURCE = re.compile(r"/api/v1/([a-z-]+)(?=[/:]|\Z)")


def needed(method: str, path: str) -> str | None:
    """Return the scope that a request needs, or None if no key may send it.

    `path` is the one that was routed: percent signs decoded, and its first parts literally those of a route of ours.
    """
    match = RESOURCE.match(path)
    if match is None or match[1] not in RESOURCES:
        return None
    return f"{match[1]}:{'read' if method in READS else 'write'}"


def check(granted: frozenset[str], *, method: str, path: str) -> None:
    """Let a request pass that the granted scopes cover.

    Raises:
        Forbidden: no API key may send it.
        InsufficientScope: a key with another scope may.
    """
    scope = needed(method, path)
    if scope is None:
        raise Forbidden("API keys are not accepted here; send an access token")
    if scope not in granted:
        raise InsufficientScope(f"this API key lacks the scope {scope}", scope=scope)
