"""The operations of an OpenAPI document, and what follows from their shape."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

PREFIX = "/api/v1"
TOKEN_SCHEME = "accessToken"  # noqa: S105 - a scheme's name
KEY_SCHEME = "apiKey"
# What an API key never opens; the first segment of the path.
CLOSED_TO_KEYS = frozenset({"auth", "api-keys", "admin"})
METHODS = frozenset({"get", "post", "put", "patch", "delete"})


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path; `spec` is its part of the document, changed in place."""

    path: str
    method: str
    spec: dict[str, Any]

    @property
    def resource(self) -> str:
        """Return the first segment below /api/v1, or nothing outside it."""
        below = self.path.removeprefix(PREFIX + "/")
        return "" if below == self.path else below.partition("/")[0].partition(":")[0]

    @property
    def is_secured(self) -> bool:
        """Whether it asks who is calling."""
        return bool(self.spec.get("security"))

    @property
    def changes(self) -> bool:
        """Whether it may change something."""
        return self.method != "get"

    @property
    def has_body(self) -> bool:
        """Whether it reads a body."""
        return "requestBody" in self.spec

    def has(self, place: str, name: str = "") -> bool:
        """Whether it has a parameter in that place (path, query or header), of that name if one is given."""
        found = [item["name"].lower() for item in self.spec.get("parameters", []) if item["in"] == place]
        return name.lower() in found if name else bool(found)

    def security(self) -> list[dict[str, list[str]]]:
        """Return the ways to prove who is asking; any one of them is enough, none is needed for an empty list."""
        if not self.is_secured:
            return []
        ways: list[dict[str, list[str]]] = [{TOKEN_SCHEME: []}]
        return ways if self.resource in CLOSED_TO_KEYS else [*ways, {KEY_SCHEME: []}]


def operations(document: dict[str, Any]) -> Iterator[Operation]:
    """Yield every operation of a document."""
    for path, methods in document["paths"].items():
        for method, spec in methods.items():
            if method in METHODS:
                yield Operation(path, method, spec)
