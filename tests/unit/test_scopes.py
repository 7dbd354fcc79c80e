"""Which scope a request needs: nothing outside the vocabulary is open to a key."""

import pytest

from taskflow_core import scopes
from taskflow_core.errors import Forbidden, InsufficientScope

EVERY = frozenset(scopes.SCOPES)


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/api/v1/tasks", "tasks:read"),
        ("HEAD", "/api/v1/tasks/7", "tasks:read"),
        ("POST", "/api/v1/tasks", "tasks:write"),
        ("POST", "/api/v1/tasks:batch", "tasks:write"),
        ("POST", "/api/v1/tasks/7:cancel", "tasks:write"),
        ("GET", "/api/v1/tasks/7/events", "tasks:read"),
        ("DELETE", "/api/v1/schedules/7", "schedules:write"),
        ("OPTIONS", "/api/v1/tasks", "tasks:write"),
        ("get", "/api/v1/tasks", "tasks:write"),
        ("GET", "/api/v1/task-types", "task-types:read"),
        ("GET", "/api/v1/auth/me", None),
        ("GET", "/api/v1/api-keys", None),
        ("GET", "/api/v1/admin/users", None),
        ("GET", "/api/v1/taskss", None),
        ("GET", "/api/v1/tasks.x", None),
        ("GET", "/api/v1/tasks\n", None),
        ("GET", "/api/v1/task", None),
        ("GET", "/api/v1//tasks", None),
        ("GET", "/api/v1/", None),
        ("GET", "/api/v1", None),
        ("GET", "/api/v2/tasks", None),
        ("GET", "/x/api/v1/tasks", None),
        ("GET", "/api/v1/TASKS", None),
        ("GET", "/metrics", None),
        ("GET", "", None),
    ],
)
def test_the_scope_a_request_needs(method: str, path: str, scope: str | None) -> None:
    assert scopes.needed(method, path) == scope
    if scope is None:
        with pytest.raises(Forbidden):
            scopes.check(EVERY, method=method, path=path)
        return
    scopes.check(frozenset({scope}), method=method, path=path)
    with pytest.raises(InsufficientScope) as refused:
        scopes.check(EVERY - {scope}, method=method, path=path)
    assert refused.value.scope == scope
