"""Each operation of the OpenAPI document is a method of both clients, and asks for what the document describes."""

import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

import pytest

from taskflow_client import aio, aio_connection, models, sync, sync_connection
from taskflow_client.call import Call
from taskflow_client.calls import access, platform, tasks, webhooks
from taskflow_core.lifecycle import FINAL

AN_ID = UUID("01936f5e-7c1a-7d3e-9c55-0242ac120002")
DOCUMENT: dict[str, Any] = json.loads((Path(__file__).parents[2] / "docs" / "openapi.json").read_text())
OPERATIONS = {
    operation["operationId"]: (path, method, operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}
BUILDERS: dict[str, Callable[..., Call[Any]]] = {
    name: function
    for module in (access, platform, tasks, webhooks)
    for name, function in inspect.getmembers(module, inspect.isfunction)
    if function.__module__ == module.__name__ and not name.startswith("_")
}
# Operations that a method does more with than to carry them out.
WRAPPED = {"login", "refresh_tokens", "logout", "change_password", "download_file"}
# Streams send the one by themselves; the client keeps no copies that the other could speak of.
LEFT_OUT = {("header", "last-event-id"), ("header", "if-none-match")}
VALUES = {"wait_s": 1, "idempotency_key": "key", "task": {"type": "EMAIL"}, "if_match": '"1"', "kinds": ["task.*"]}


def bound(module: ModuleType, group: type) -> set[str]:
    """The operations that the client's groups of a module carry out."""
    groups = [kind for _, kind in inspect.getmembers(module, inspect.isclass) if issubclass(kind, group)]
    methods = [method for kind in groups for method in vars(kind).values() if hasattr(method, "build")]
    return {method.build.__name__ for method in methods}


def made(name: str) -> Call[Any]:
    """A call with a value for every parameter that has a name."""
    parameters = inspect.signature(BUILDERS[name]).parameters.values()
    named = [item for item in parameters if item.kind is not inspect.Parameter.VAR_KEYWORD]
    return BUILDERS[name](**{item.name: value_of(item.name) for item in named})


def value_of(name: str) -> Any:
    if name.endswith("_id"):
        return AN_ID
    return VALUES.get(name, [] if name == "items" else "value")


def fields_of(schema: dict[str, Any]) -> set[str]:
    resolved = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return set(resolved["properties"])


@pytest.mark.parametrize(
    ("module", "group"),
    [
        pytest.param(sync, sync_connection.Group, id="threads"),
        pytest.param(aio, aio_connection.AsyncGroup, id="event loop"),
    ],
)
def test_every_operation_has_a_method(module: ModuleType, group: type) -> None:
    assert set(OPERATIONS) - bound(module, group) - WRAPPED == set(), "add it to taskflow_client"


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_a_call_asks_for_what_the_document_describes(name: str) -> None:
    path, method, operation = OPERATIONS[name]
    call = made(name)
    asked = {("query", query.lower()) for query in call.query} | {("header", header.lower()) for header in call.headers}
    described = {(item["in"], item["name"].lower()) for item in operation.get("parameters", [])}
    assert call.method.lower() == method
    assert re.fullmatch(re.sub(r"\{\w+\}", "[^/:]+", path), call.address)
    assert {place_and_name for place_and_name in described - asked if place_and_name[0] != "path"} <= LEFT_OUT
    assert call.anonymous == (operation["security"] == [])
    if call.body is not None:
        assert set(call.body) <= fields_of(operation["requestBody"]["content"]["application/json"]["schema"])


def test_both_clients_have_the_same_methods() -> None:
    def methods(client: type) -> set[str]:
        return {name for name in vars(client) if not name.startswith("_")}

    for name, group in inspect.getmembers(
        sync, lambda kind: inspect.isclass(kind) and kind.__module__ == sync.__name__
    ):
        twin = "AsyncTaskFlow" if name == "TaskFlow" else name
        assert methods(group) == methods(getattr(aio, twin)), name


def test_a_status_that_ends_a_task_is_the_platforms() -> None:
    assert {status.value for status in FINAL} == models.FINAL
