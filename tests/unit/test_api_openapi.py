"""The OpenAPI document names every route, body and error."""

from typing import Any

import pytest
from pydantic import SecretStr

from taskflow_api.app import create_app
from taskflow_core.handlers import Registry
from taskflow_core.settings import ApiSettings


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    settings = ApiSettings(
        database_url=SecretStr("postgresql://u:p@127.0.0.1:1/x"),
        redis_url=SecretStr("redis://127.0.0.1:1/0"),
        jwt_secret=SecretStr("x" * 32),
    )
    return create_app(settings, registry=Registry({})).openapi()


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*(references(child) for child in node.values()))
    if isinstance(node, list):
        return set().union(*(references(child) for child in node))
    return set()


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert references(document) <= known


def test_every_operation_of_the_api_says_what_it_answers(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert "4XX" in operation["responses"], (method, path)
            assert "422" not in operation["responses"], "problems replace FastAPI's own"
            if path.startswith("/api/v1/tasks"):
                assert operation["security"] == [{"HTTPBearer": []}], (method, path)


@pytest.mark.parametrize("path", ["/api/v1/tasks", "/api/v1/auth/login", "/api/v1/auth/refresh"])
def test_bodies_that_endpoints_read_themselves_are_described(document: dict[str, Any], path: str) -> None:
    assert document["paths"][path]["post"]["requestBody"]["required"] is True
