"""Optimistic concurrency: a change may name the versions it was made for, and is refused when the thing moved on."""

from taskflow_core.errors import StaleVersion

Expected = frozenset[str] | None  # None: whatever the version is


def check_version(current: str, expected: Expected) -> None:
    """Do nothing if the current version is among those that a change was made for.

    Raises:
        StaleVersion: it is not.
    """
    if expected is not None and current not in expected:
        raise StaleVersion(f'this has changed since you read it: its ETag is now "{current}"; read it again')
