"""Example values for the OpenAPI document: one word for one thing, so a field's name says what it holds."""

from typing import Any

A_TASK = "01936f5e-7c1a-7d3e-9c55-0242ac120002"
A_USER = "01936f5e-7c1a-7d3e-9c55-0242ac120003"
A_MOMENT = "2026-11-24T09:30:00Z"
BY_NAME: dict[str, Any] = {
    "access_token": "eyJhbGciOiJIUzI1NiIsInR5cCI6ImF0K2p3dCJ9.e30.c2lnbmF0dXJl",
    "cron": "30 9 * * MON-FRI",
    "dedup_key": None,
    "email": "ada@example.com",
    "error": None,
    "expected_count": 12,
    "expires_in": 900,
    "fire_at": None,
    "max_attempts": 3,
    "media_type": "text/csv",
    "name": "daily report",
    "next_cursor": None,
    "owner_id": A_USER,
    "password": "correct horse battery",
    "payload": {"last": "24h", "format": "csv"},
    "priority": 0,
    "progress": None,
    "queue": "default",
    "refresh_token": "Zk9w1tq0m5nJx7B2yVh3cR8sLd4uKe6aPg1oTi5fXr0",
    "result": {"rows": 128},
    "schedule_id": None,
    "size": 20_480,
    "state": "COMPLETED",
    "status": "COMPLETED",
    "tags": ["daily"],
    "timeout_s": 300,
    "timezone": "Europe/Berlin",
    "title": "Yesterday in numbers",
    "type": "REPORT",
    "worker_id": "worker-7d9f-1",
}
BY_FORMAT = {"uuid": A_TASK, "date-time": A_MOMENT, "uri": "https://example.com/hook", "password": "correct horse"}
PYTHON: dict[str, type] = {"string": str, "integer": int, "object": dict, "array": list, "null": type(None)}
BY_TYPE: dict[str, Any] = {"string": "text", "integer": 1, "number": 1.5, "boolean": False, "object": {}, "null": None}


def example_of(schema: dict[str, Any], schemas: dict[str, Any], *, name: str = "") -> Any:
    """Return a value of a JSON Schema: that of the field's name, its own example, or the simplest of its kind.

    `schemas` are those that `$ref` leads to. Fields with a default are left out of an object where others are required.
    """
    choices = schema.get("anyOf", [schema])
    schema = _resolve(schema, schemas)
    if name in BY_NAME and any(_fits(BY_NAME[name], _resolve(choice, schemas)) for choice in choices):
        return BY_NAME[name]
    for own in ("examples", "enum"):
        if schema.get(own):
            return schema[own][0]
    for own in ("const", "default"):
        if own in schema:
            return schema[own]
    match schema.get("type"):
        case "object" if "properties" in schema:
            return _object(schema, schemas)
        case "array":
            return [example_of(schema["items"], schemas, name=name)]
        case kind:
            return BY_FORMAT.get(schema.get("format", ""), BY_TYPE.get(str(kind)))


def _fits(value: Any, schema: dict[str, Any]) -> bool:
    kind = schema.get("type")
    return isinstance(value, PYTHON.get(str(kind), object)) and value in schema.get("enum", [value])


def _object(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    fields = schema["properties"]
    shown = schema.get("required") or list(fields)[:2]
    return {name: example_of(fields[name], schemas, name=name) for name in fields if name in shown}


def _resolve(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """Return the schema that is meant: behind a `$ref`, or the first choice."""
    while True:
        if "$ref" in schema:
            schema = schemas[schema["$ref"].rpartition("/")[2]]
        elif choice := schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf"):
            schema = {name: value for name, value in schema.items() if name not in {"anyOf", "oneOf", "allOf"}} | {
                **choice[0]
            }
        else:
            return schema
