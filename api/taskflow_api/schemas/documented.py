"""What validators refuse beyond what their types say, and JSON Schema as the document shows it."""

from typing import Any


def given(value: object) -> object:
    """Refuse null for a field of a change, whose type has it only to say that it was left out."""
    if value is None:
        raise ValueError("leave it out, or give a value")
    return value


def without_null(schema: dict[str, Any]) -> None:
    """Take null, and the default that goes with it, out of a schema with one other choice."""
    choices = [choice for choice in schema.get("anyOf", []) if choice != {"type": "null"}]
    if len(choices) == 1:
        del schema["anyOf"]
        if schema.get("default") is None:
            schema.pop("default", None)
        schema |= choices[0]


def only_given(schema: dict[str, Any]) -> None:
    """Say of the body of a change that it holds something, and no null."""
    schema["minProperties"] = 1
    for field in schema["properties"].values():
        without_null(field)
