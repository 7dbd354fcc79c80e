"""Operations on tasks."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from taskflow_client.call import Call, given, key_headers, model, raw, segment
from taskflow_client.models import (
    Attempt,
    BatchResult,
    BulkCancel,
    BulkRetry,
    Items,
    LogLine,
    Page,
    Stretch,
    Task,
    TaskEvent,
    TaskFile,
    TaskType,
)

Id = str | UUID
Texts = str | Sequence[str]


def create_task(
    type: str,  # noqa: A002 - the API's word
    payload: Mapping[str, Any] | None = None,
    *,
    title: str | None = None,
    queue: str | None = None,
    priority: int | None = None,
    run_at: datetime | None = None,
    delay_s: float | None = None,
    max_attempts: int | None = None,
    timeout_s: int | None = None,
    dedup_key: str | None = None,
    tags: Sequence[str] | None = None,
    wait_s: int | None = None,
    idempotency_key: str | None = None,
) -> Call[Task]:
    """Create a task, once, however often the request has to be sent; `wait_s` (0 to 30) waits for its end."""
    body = given(
        type=type,
        payload=payload or {},
        title=title,
        queue=queue,
        priority=priority,
        run_at=run_at,
        delay_s=delay_s,
        max_attempts=max_attempts,
        timeout_s=timeout_s,
        dedup_key=dedup_key,
        tags=tags,
    )
    headers = key_headers(idempotency_key) | _prefer(wait_s)
    return Call("POST", "/tasks", model(Task), body=body, headers=headers, timeout_s=_patience(wait_s))


def create_batch_tasks(items: Iterable[Mapping[str, Any]], *, idempotency_key: str | None = None) -> Call[BatchResult]:
    """Create up to 1,000 tasks from bodies like that of one; each item has its result, in the same order."""
    body = {"items": [given(**item) for item in items]}
    headers = key_headers(idempotency_key)
    return Call("POST", "/tasks:batch", model(BatchResult), body=body, headers=headers, timeout_s=60)


def get_task(task_id: Id, *, wait_s: int | None = None) -> Call[Task]:
    """Return a task; with `wait_s` (0 to 30) once it has ended, or after so many seconds."""
    path = f"/tasks/{segment(task_id)}"
    return Call("GET", path, model(Task), headers=_prefer(wait_s), timeout_s=_patience(wait_s))


def list_tasks(
    *,
    status: Texts | None = None,
    type: Texts | None = None,  # noqa: A002 - the API's word
    queue: str | None = None,
    tag: str | None = None,
    q: str | None = None,
    created_from: datetime | None = None,
    created_to: datetime | None = None,
    finished_from: datetime | None = None,
    finished_to: datetime | None = None,
    owner_id: Id | None = None,
    schedule_id: Id | None = None,
    batch_id: Id | None = None,
    error_code: str | None = None,
    order: str | None = None,
    count: str | None = None,
    limit: int = 100,
    page: int | None = None,
    cursor: str | None = None,
) -> Call[Page[Task]]:
    """Return tasks that match everything given, the newest first; `count` asks for a total: "exact" or "estimate"."""
    query = given(
        status=status,
        type=type,
        queue=queue,
        tag=tag,
        q=q,
        created_from=created_from,
        created_to=created_to,
        finished_from=finished_from,
        finished_to=finished_to,
        owner_id=owner_id,
        schedule_id=schedule_id,
        batch_id=batch_id,
        error_code=error_code,
        order=order,
        count=count,
        limit=limit,
        page=page,
        cursor=cursor,
    )
    return Call("GET", "/tasks", model(Page[Task]), query=query)


def edit_task(task_id: Id, *, if_match: str | None = None, **changes: Any) -> Call[Task]:
    """Change `title` and `tags` at any time; queue, priority, run_at, delay_s, ... while the task is PENDING."""
    headers = _if_match(if_match)
    return Call("PATCH", f"/tasks/{segment(task_id)}", model(Task), body=given(**changes), headers=headers)


def remove_task(task_id: Id, *, if_match: str | None = None) -> Call[None]:
    """Delete a finished task with all that it left."""
    return Call("DELETE", f"/tasks/{segment(task_id)}", lambda _: None, headers=_if_match(if_match))


def cancel_task(task_id: Id, *, if_match: str | None = None) -> Call[Task]:
    """Cancel a task that waits; ask one that runs to stop."""
    return Call("POST", f"/tasks/{segment(task_id)}:cancel", model(Task), headers=_if_match(if_match))


def retry_task(task_id: Id, *, if_match: str | None = None) -> Call[Task]:
    """Give a FAILED task a fresh set of attempts."""
    return Call("POST", f"/tasks/{segment(task_id)}:retry", model(Task), headers=_if_match(if_match))


def clone_task(task_id: Id, *, idempotency_key: str | None = None, **changes: Any) -> Call[Task]:
    """Create a task like this one, with what is given anew, once."""
    path, headers = f"/tasks/{segment(task_id)}:clone", key_headers(idempotency_key)
    return Call("POST", path, model(Task), body=given(**changes), headers=headers)


def bulk_retry_tasks(*, expected_count: int, **filters: Any) -> Call[BulkRetry]:
    """Give every FAILED task of a filter a fresh set of attempts, if there are as many as expected."""
    body = {"filter": given(**filters), "expected_count": expected_count}
    return Call("POST", "/tasks:bulkRetry", model(BulkRetry), body=body, timeout_s=60)


def bulk_cancel_tasks(*, expected_count: int, **filters: Any) -> Call[BulkCancel]:
    """Cancel every unfinished task of a filter, if there are as many as expected."""
    body = {"filter": given(**filters), "expected_count": expected_count}
    return Call("POST", "/tasks:bulkCancel", model(BulkCancel), body=body, timeout_s=60)


def list_attempts(task_id: Id) -> Call[Items[Attempt]]:
    """Return the attempts of a task that have ended, oldest first."""
    return Call("GET", f"/tasks/{segment(task_id)}/attempts", model(Items[Attempt]))


def list_files(task_id: Id) -> Call[Items[TaskFile]]:
    """Return the names, types and sizes of the files that a task made."""
    return Call("GET", f"/tasks/{segment(task_id)}/files", model(Items[TaskFile]))


def download_file(task_id: Id, name: str) -> Call[Any]:
    """Return the content of a file in pieces."""
    return Call("GET", f"/tasks/{segment(task_id)}/files/{segment(name)}", raw, headers={"Accept": "*/*"})


def list_task_events(
    task_id: Id, *, kind: str | None = None, after: int | None = None, limit: int = 100
) -> Call[Stretch[TaskEvent]]:
    """Return what happened to a task, after an event's id."""
    query = given(kind=kind, after=after, limit=limit)
    return Call("GET", f"/tasks/{segment(task_id)}/events", model(Stretch[TaskEvent]), query=query)


def list_events(
    *,
    kind: str | None = None,
    type: str | None = None,  # noqa: A002 - the API's word
    queue: str | None = None,
    task: Id | None = None,
    after: int | None = None,
    limit: int = 100,
) -> Call[Stretch[TaskEvent]]:
    """Return what happened to your tasks, after an event's id."""
    query = given(kind=kind, type=type, queue=queue, task=task, after=after, limit=limit)
    return Call("GET", "/events", model(Stretch[TaskEvent]), query=query)


def list_lines(
    task_id: Id, *, level: str | None = None, attempt: int | None = None, after: int | None = None, limit: int = 100
) -> Call[Stretch[LogLine]]:
    """Return what a task's handler logged, after a line's id; `level` and those above."""
    query = given(level=level, attempt=attempt, after=after, limit=limit)
    return Call("GET", f"/tasks/{segment(task_id)}/logs", model(Stretch[LogLine]), query=query)


def list_task_types() -> Call[Items[TaskType]]:
    """Return the installed task types with the schemas of their payloads and results."""
    return Call("GET", "/task-types", model(Items[TaskType]))


def _prefer(wait_s: int | None) -> dict[str, str]:
    return {} if wait_s is None else {"Prefer": f"wait={wait_s}"}


def _patience(wait_s: int | None) -> float | None:
    return None if wait_s is None else wait_s + 15.0


def _if_match(etag: str | None) -> dict[str, str]:
    return {} if etag is None else {"If-Match": etag}
