"""The table of errors is complete, and what leaves the API says no more than it should."""

from collections.abc import Iterator

import orjson
import pytest
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import OperationalError, ProgrammingError
from starlette.exceptions import HTTPException

from taskflow_api.problems import STATUS, describe, status_of
from taskflow_core.errors import (
    DuplicateTask,
    FieldProblem,
    InsufficientScope,
    Invalid,
    InvalidToken,
    TaskFlowError,
    TooMany,
    Unauthenticated,
    Unavailable,
)


def tree(kind: type[TaskFlowError]) -> Iterator[type[TaskFlowError]]:
    for child in kind.__subclasses__():
        yield child
        yield from tree(child)


@pytest.mark.parametrize("kind", list(dict.fromkeys(tree(TaskFlowError))))
def test_every_expected_failure_has_a_client_status_or_503(kind: type[TaskFlowError]) -> None:
    status = status_of(kind)
    assert status is not None
    assert 400 <= status < 500 or status == 503


def test_every_direct_child_of_the_root_is_in_the_table() -> None:
    assert set(TaskFlowError.__subclasses__()) == set(STATUS)


def test_every_failure_has_a_code_of_its_own() -> None:
    codes = [kind.code for kind in tree(TaskFlowError)]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize(
    ("error", "header", "value"),
    [
        (
            InsufficientScope("no", scope="tasks:read"),
            "WWW-Authenticate",
            'Bearer realm="taskflow", error="insufficient_scope", scope="tasks:read"',
        ),
        (Unauthenticated("who?"), "WWW-Authenticate", 'Bearer realm="taskflow"'),
        (InvalidToken("old"), "WWW-Authenticate", 'Bearer realm="taskflow", error="invalid_token"'),
        (TooMany("slow down", retry_after_s=7), "Retry-After", "7"),
        (Unavailable("away", retry_after_s=0), "Retry-After", "1"),
        (HTTPException(405, headers={"Allow": "GET"}), "Allow", "GET"),
    ],
)
def test_a_problem_carries_the_header_its_status_asks_for(error: Exception, header: str, value: str) -> None:
    assert describe(error).headers[header] == value


def test_a_problem_document_has_the_members_of_rfc_9457_and_ours() -> None:
    response = describe(Invalid("no", [FieldProblem("a.0", "is wrong")])).response("id-1")
    assert response.media_type == "application/problem+json"
    assert orjson.loads(response.body) == {
        "type": "urn:taskflow:problem:invalid",
        "title": "Unprocessable Entity",
        "status": 422,
        "detail": "no",
        "code": "invalid",
        "request_id": "id-1",
        "errors": [{"field": "a.0", "message": "is wrong"}],
    }


def test_a_duplicate_names_the_task_that_is_in_the_way() -> None:
    assert describe(DuplicateTask("there is one", task_id="7")).more == {"task_id": "7"}


def test_an_outage_of_the_database_is_503_and_a_wrong_statement_is_500() -> None:
    away = describe(OperationalError("SELECT 1", {}, Exception("refused")))
    assert (away.status, away.code) == (503, "unavailable")
    wrong = describe(ProgrammingError("SELECT secret", {}, Exception("no column secret")))
    assert (wrong.status, wrong.code) == (500, "internal_error")
    assert "secret" not in wrong.detail


def test_of_many_wrong_fields_only_the_first_are_listed() -> None:
    errors = [{"loc": ("query", f"f{number}"), "msg": "Value error, no", "type": "x"} for number in range(1000)]
    problem = describe(RequestValidationError(errors))
    assert len(problem.more["errors"]) == 50
    assert problem.more["errors"][0] == {"field": "f0", "message": "no"}
