"""Rows as JSON: written straight to bytes, because validating a big payload on its way out helps nobody."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias

import orjson
from starlette.responses import Response

from taskflow_api.problems import describe
from taskflow_api.schemas.tasks import TaskState
from taskflow_core.errors import TaskFlowError
from taskflow_core.inserts import TaskRow
from taskflow_core.lifecycle import TaskStatus
from taskflow_core.models.tasks import Task, TaskAttempt

Shown: TypeAlias = Task | TaskRow


class Json(Response):
    """An answer whose bytes are there; its headers are made once, and not looked through for those that are."""

    media_type = "application/json"

    def __init__(self, body: bytes, status: int, headers: Mapping[str, str]) -> None:
        self.body = body
        self.status_code = status
        self.background = None
        self.raw_headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
        self.raw_headers += [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]


def respond(body: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON response."""
    return Json(to_json(body), status, headers or {})


def to_json(body: Any) -> bytes:
    """Return the body's JSON; times as ISO 8601 in UTC with Z."""
    return orjson.dumps(body, option=orjson.OPT_UTC_Z)


def task_response(task: Shown, *, now: datetime, headers: Mapping[str, str] | None = None) -> Response:
    """Return one task with its version as ETag."""
    return respond(task_body(task, now=now), headers={"ETag": f'"{task.row_version}"', **(headers or {})})


def task_state(task: Shown, *, now: datetime) -> TaskState:
    """Return what the task is shown as."""
    if task.status != TaskStatus.PENDING:
        return TaskState(task.status)
    if task.attempt > 0:
        return TaskState.RETRYING
    # What was enqueued is due by the database's clock, which may be a little ahead of ours.
    return TaskState.SCHEDULED if task.enqueued_at is None and task.run_at > now else TaskState.PENDING


def task_body(task: Shown, *, now: datetime) -> dict[str, Any]:
    """Return the fields of TaskResource."""
    return {
        "id": task.id,
        "type": task.type,
        "title": task.title,
        "queue": task.queue,
        "priority": task.priority,
        "status": task.status,
        "state": task_state(task, now=now),
        "payload": task.payload,
        "result": task.result,
        "error": task.error,
        "progress": task.progress,
        "tags": task.tags,
        "attempt": task.attempt,
        "max_attempts": task.max_attempts,
        "timeout_s": task.timeout_s,
        "run_at": task.run_at,
        "dedup_key": task.dedup_key,
        "schedule_id": task.schedule_id,
        "fire_at": task.fire_at,
        "cancel_requested": task.cancel_requested_at is not None,
        "created_at": task.created_at,
        "started_at": task.started_at,
        "finished_at": task.finished_at,
        "updated_at": task.updated_at,
        "version": task.row_version,
        "owner_id": task.owner_id,
    }


def batch_body(results: Sequence[TaskRow | TaskFlowError], *, request_id: str, now: datetime) -> dict[str, Any]:
    """Return the fields of BatchResult."""
    items = [_batch_item(result, request_id, now) for result in results]
    return {"created": sum(item["status"] == 201 for item in items), "items": items}


def _batch_item(result: TaskRow | TaskFlowError, request_id: str, now: datetime) -> dict[str, Any]:
    if isinstance(result, TaskFlowError):
        problem = describe(result)
        return {"status": problem.status, "problem": problem.body(request_id)}
    return {
        "status": 201,
        "task": {"id": result.id, "state": task_state(result, now=now), "version": result.row_version},
    }


def attempt_body(attempt: TaskAttempt) -> dict[str, Any]:
    """Return the fields of AttemptResource."""
    return {
        "attempt": attempt.attempt,
        "outcome": attempt.outcome,
        "error": attempt.error,
        "worker_id": attempt.worker_id,
        "started_at": attempt.started_at,
        "finished_at": attempt.finished_at,
    }
