"""What the page at /docs shows of the OpenAPI document."""

import json
from dataclasses import dataclass
from importlib import resources
from typing import Any

from taskflow_api.operations import Operation, operations

PACKAGE = "taskflow_api.reference"


@dataclass(frozen=True, slots=True)
class Field:
    """A parameter, or a field of a body: `kind` is its JSON type in words."""

    name: str
    place: str
    kind: str
    required: bool
    description: str


@dataclass(frozen=True, slots=True)
class Answer:
    """One way in which an operation answers."""

    status: str
    description: str
    example: str


def page(document: dict[str, Any]) -> str:
    """Return the page of an OpenAPI document."""
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape  # nothing else here needs it

    environment = Environment(
        loader=PackageLoader("taskflow_api", "reference"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = [_operation(operation, document) for operation in operations(document)]
    tags = [
        {**tag, "operations": [operation for operation in shown if tag["name"] in operation["tags"]]}
        for tag in document["tags"]
    ]
    return environment.get_template("page.html").render(info=document["info"], tags=tags)


def style() -> str:
    """Return the page's style sheet."""
    return resources.files(PACKAGE).joinpath("style.css").read_text()


def _operation(operation: Operation, document: dict[str, Any]) -> dict[str, Any]:
    spec = operation.spec
    content = spec.get("requestBody", {}).get("content", {}).get("application/json", {})
    return {
        "id": spec["operationId"],
        "method": operation.method,
        "path": operation.path,
        "tags": spec["tags"],
        "summary": spec["summary"],
        "description": spec["description"],
        "parameters": [_parameter(item, document) for item in spec.get("parameters", [])],
        "fields": _fields(content.get("schema", {}), document),
        "curl": _curl(operation, content.get("example")),
        "answers": [_answer(status, answer, document) for status, answer in spec["responses"].items()],
    }


def _parameter(item: dict[str, Any], document: dict[str, Any]) -> Field:
    kind = _kind(item["schema"], document)
    return Field(item["name"], item["in"], kind, item.get("required", False), item.get("description", ""))


def _fields(schema: dict[str, Any], document: dict[str, Any]) -> list[Field]:
    model = _resolved(schema, document)
    required = model.get("required", [])
    return [
        Field(name, "body", _kind(field, document), name in required, field.get("description", ""))
        for name, field in model.get("properties", {}).items()
    ]


def _answer(status: str, answer: dict[str, Any], document: dict[str, Any]) -> Answer:
    answer = _resolved(answer, document)
    examples = [content["example"] for content in answer.get("content", {}).values() if "example" in content]
    return Answer(status, answer["description"], json.dumps(examples[0], indent=2) if examples else "")


def _kind(schema: dict[str, Any], document: dict[str, Any]) -> str:
    """Return a schema in words: its type, or its choices."""
    schema = _resolved(schema, document)
    if choices := schema.get("anyOf", schema.get("oneOf")):
        return " or ".join(dict.fromkeys(_kind(choice, document) for choice in choices))
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        return f"list of {_kind(schema['items'], document)}"
    return str(schema.get("format", schema.get("type", "any")))


def _resolved(schema: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        found: Any = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        schema = found
    return schema


def _curl(operation: Operation, example: Any) -> str:
    lines = [f"curl -X {operation.method.upper()} http://127.0.0.1:8000{operation.path}"]
    if operation.is_secured:
        lines.append('-H "Authorization: Bearer $token"')
    if example is not None:
        body = json.dumps(example).replace("'", "'\\''")
        lines += ["-H 'Content-Type: application/json'", f"-d '{body}'"]
    return " \\\n  ".join(lines)
