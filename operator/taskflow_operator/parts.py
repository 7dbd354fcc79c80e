"""What the models of the spec are made of: their base, bounded types, CEL rules."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel

DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
DNS_NAME = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
QUEUE = r"^[a-z0-9][a-z0-9_.-]*$"
QUANTITY = r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)(([KMGTPE]i)|[numkMGTPE]|([eE][-+]?[0-9]+))?$"


def rule(cel: str, message: str) -> dict[str, Any]:
    """Return a CEL rule with the message that a user reads."""
    return {"rule": cel, "message": message}


def rules(*items: dict[str, Any]) -> dict[str, Any]:
    """Return what puts CEL rules beside a model or a field in the schema."""
    return {"x-kubernetes-validations": list(items)}


def keyed_by(field: str) -> dict[str, Any]:
    """Return what makes a list a map by that field: unique, and merged item by item."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [field]}


class Part(BaseModel):
    """A piece of the spec: camelCase outside, frozen, unknown fields left to the API server."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore", use_attribute_docstrings=True
    )


Name = Annotated[str, Field(min_length=1, max_length=253, pattern=DNS_NAME)]
Label = Annotated[str, Field(min_length=1, max_length=30, pattern=DNS_LABEL)]
Replicas = Annotated[int, Field(ge=0, le=1000)]
Percent = Annotated[int, Field(ge=0, le=100)]
Text = Annotated[str, Field(max_length=1024)]
Free = Annotated[
    dict[str, Any], WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True})
]  # Kubernetes' own types: the API server checks them when the pods are applied
Quantity = Annotated[
    str | int,
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": QUANTITY,
            "maxLength": 32,
        }
    ),
]
Strings = Annotated[dict[str, Text], Field(max_length=32)]
FreeList = Annotated[list[Free], Field(max_length=16)]
