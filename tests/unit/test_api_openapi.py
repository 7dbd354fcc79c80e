"""The OpenAPI document names every operation, body, answer and error, and is the one that the repository keeps."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from pydantic import BaseModel

from taskflow_api import openapi
from taskflow_api.answers import HEADERS, codes_of
from taskflow_api.document import render
from taskflow_api.operations import Operation, operations
from taskflow_api.problems import MEDIA_TYPE, STATUS

KEPT = Path(__file__).parents[2] / "docs" / "openapi.json"
DOCUMENT: dict[str, Any] = json.loads(render())
PUBLIC = {
    "/api/v1/auth/register",
    "/api/v1/auth/login",
    "/api/v1/auth/refresh",
    "/api/v1/auth/logout",
    "/health/live",
    "/health/ready",
    "/metrics",
}

each_operation = pytest.mark.parametrize(
    "operation", [pytest.param(item, id=f"{item.method} {item.path}") for item in operations(DOCUMENT)]
)


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*(references(child) for child in node.values()))
    if isinstance(node, list):
        return set().union(*(references(child) for child in node))
    return set()


def refusals(operation: Operation) -> dict[int, dict[str, Any]]:
    shared = DOCUMENT["components"]["responses"]
    found = {int(status): response.get("$ref", "") for status, response in operation.spec["responses"].items()}
    return {status: shared[name.rpartition("/")[2]] for status, name in found.items() if name}


def test_the_document_in_the_repository_is_that_of_the_code() -> None:
    assert KEPT.read_text() == render(), "run make openapi"


def test_every_reference_leads_somewhere() -> None:
    components = DOCUMENT["components"]
    known = {f"#/components/{kind}/{name}" for kind in ("schemas", "responses", "headers") for name in components[kind]}
    assert references(DOCUMENT) <= known


def test_an_operation_has_a_name_of_its_own() -> None:
    names = [operation.spec["operationId"] for operation in operations(DOCUMENT)]
    assert sorted(names) == sorted(set(names))
    assert [name for name in names if not re.fullmatch(r"[a-z]+(_[a-z]+)*", name)] == []


@each_operation
def test_an_operation_says_in_words_what_it_does(operation: Operation) -> None:
    assert re.fullmatch(r"[A-Z].*[^. ]", operation.spec["summary"])
    described = {tag["name"] for tag in DOCUMENT["tags"]}
    assert operation.spec["tags"], "give its router a tag"
    assert set(operation.spec["tags"]) <= described, "describe the tag in taskflow_api/openapi.py"


@each_operation
def test_an_operation_asks_who_is_calling_unless_it_is_public(operation: Operation) -> None:
    assert (operation.spec["security"] == []) == (operation.path in PUBLIC)


@each_operation
def test_an_operation_lists_its_refusals_with_their_codes(operation: Operation) -> None:
    found = refusals(operation)
    assert 500 in found
    assert (401 in found) or operation.path in PUBLIC
    assert (404 in found) == ("{" in operation.path or operation.has("query", "task"))
    assert {400, 413, 415, 422} <= set(found) or not operation.has_body
    for status, refusal in found.items():
        content = refusal["content"][MEDIA_TYPE]
        codes = content["schema"]["allOf"][1]["properties"]["code"]["enum"]
        assert codes
        assert set(codes) <= set(codes_of(status))
        assert content["example"]["code"] in codes


@each_operation
def test_an_operation_that_takes_or_answers_json_shows_an_example(operation: Operation) -> None:
    bodies = [operation.spec.get("requestBody", {}), *operation.spec["responses"].values()]
    contents = [body.get("content", {}).get("application/json") for body in bodies]
    assert [content for content in contents if content and "example" not in content] == []
    assert [content for content in contents if content and not content["schema"]] == [], "give its answer a model"


@each_operation
def test_the_example_of_a_body_is_accepted(operation: Operation) -> None:
    if operation.has_body:
        content = operation.spec["requestBody"]["content"]["application/json"]
        model = openapi.BODIES[content["schema"]["$ref"].rpartition("/")[2]]
        model.model_validate(content["example"])


def test_every_status_of_an_error_is_listed_somewhere() -> None:
    listed = {status for operation in operations(DOCUMENT) for status in refusals(operation)}
    assert set(STATUS.values()) <= listed


def test_every_shared_header_is_described() -> None:
    assert DOCUMENT["components"]["headers"] == HEADERS


@pytest.mark.parametrize(
    ("path", "name", "expected"),
    [
        ("/api/v1/tasks", "create", "create_task"),
        ("/api/v1/tasks", "list_tasks", "list_tasks"),
        ("/api/v1/tasks:bulkRetry", "bulk_retry", "bulk_retry_tasks"),
        ("/api/v1/tasks/{task_id}:cancel", "cancel", "cancel_task"),
        ("/api/v1/tasks/{task_id}/files", "list_files", "list_files"),
        ("/api/v1/api-keys", "create", "create_api_key"),
        ("/api/v1/admin/users/{user_id}", "change", "change_user"),
        ("/api/v1/auth/login", "login", "login"),
        ("/health/live", "live", "live"),
    ],
)
def test_a_bare_verb_is_completed_by_what_it_is_done_to(path: str, name: str, expected: str) -> None:
    assert openapi.operation_id(APIRoute(path, endpoint=lambda: None, name=name)) == expected


def test_two_bodies_of_one_name_are_refused() -> None:
    class Registration(BaseModel):
        name: str

    with pytest.raises(ValueError, match="two bodies are called Registration"):
        openapi.takes(Registration)
