"""Operations on schedules, queues, workers and figures, and on the platform itself."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from taskflow_client.call import Call, given, model, nothing, segment, text
from taskflow_client.models import Health, Items, Page, Queue, Schedule, Stats, Worker

Id = str | UUID


def create_schedule(
    name: str,
    cron: str,
    task: Mapping[str, Any],
    *,
    timezone: str | None = None,
    misfire: str | None = None,
) -> Call[Schedule]:
    """Make a schedule; each firing creates a task from `task`, a body like that of `tasks.create`."""
    body = given(name=name, cron=cron, task=task, timezone=timezone, misfire=misfire)
    return Call("POST", "/schedules", model(Schedule), body=body)


def list_schedules(*, limit: int = 100, cursor: str | None = None) -> Call[Page[Schedule]]:
    """Return schedules, newest first."""
    return Call("GET", "/schedules", model(Page[Schedule]), query=given(limit=limit, cursor=cursor))


def get_schedule(schedule_id: Id) -> Call[Schedule]:
    """Return one schedule with its next firings."""
    return Call("GET", f"/schedules/{segment(schedule_id)}", model(Schedule))


def edit_schedule(
    schedule_id: Id,
    *,
    name: str | None = None,
    cron: str | None = None,
    timezone: str | None = None,
    misfire: str | None = None,
    task: Mapping[str, Any] | None = None,
    if_match: str | None = None,
) -> Call[Schedule]:
    """Change what is given; `task` as a whole."""
    body = given(name=name, cron=cron, timezone=timezone, misfire=misfire, task=task)
    headers = _if_match(if_match)
    return Call("PATCH", f"/schedules/{segment(schedule_id)}", model(Schedule), body=body, headers=headers)


def pause_schedule(schedule_id: Id, *, if_match: str | None = None) -> Call[Schedule]:
    """Stop a schedule from firing."""
    path, headers = f"/schedules/{segment(schedule_id)}:pause", _if_match(if_match)
    return Call("POST", path, model(Schedule), headers=headers)


def resume_schedule(schedule_id: Id, *, if_match: str | None = None) -> Call[Schedule]:
    """Let a schedule fire again, from its next time on."""
    path, headers = f"/schedules/{segment(schedule_id)}:resume", _if_match(if_match)
    return Call("POST", path, model(Schedule), headers=headers)


def remove_schedule(schedule_id: Id, *, if_match: str | None = None) -> Call[None]:
    """Delete a schedule; the tasks that it made stay."""
    return Call("DELETE", f"/schedules/{segment(schedule_id)}", nothing, headers=_if_match(if_match))


def list_queues() -> Call[Items[Queue]]:
    """Return the queues, by name."""
    return Call("GET", "/queues", model(Items[Queue]))


def pause_queue(name: str) -> Call[Queue]:
    """Let no worker take from a queue. For OPERATOR and ADMIN."""
    return Call("POST", f"/queues/{segment(name)}:pause", model(Queue))


def resume_queue(name: str) -> Call[Queue]:
    """Let workers take from a queue again. For OPERATOR and ADMIN."""
    return Call("POST", f"/queues/{segment(name)}:resume", model(Queue))


def list_workers(*, limit: int = 100, cursor: str | None = None) -> Call[Page[Worker]]:
    """Return the workers, by id. For OPERATOR and ADMIN."""
    return Call("GET", "/workers", model(Page[Worker]), query=given(limit=limit, cursor=cursor))


def get_worker(worker_id: str) -> Call[Worker]:
    """Return one worker with the tasks that it runs. For OPERATOR and ADMIN."""
    return Call("GET", f"/workers/{segment(worker_id)}", model(Worker))


def get_stats(*, window_s: int | None = None) -> Call[Stats]:
    """Return figures about the tasks of the last `window_s` seconds."""
    return Call("GET", "/stats", model(Stats), query=given(window_s=window_s))


def live() -> Call[Health]:
    """Return whether the process turns."""
    return Call("GET", "/health/live", model(Health), anonymous=True)


def ready() -> Call[Health]:
    """Return whether requests can be served."""
    return Call("GET", "/health/ready", model(Health), anonymous=True)


def metrics() -> Call[str]:
    """Return what the process counts, in Prometheus' text format."""
    return Call("GET", "/metrics", text, headers={"Accept": "text/plain"}, anonymous=True)


def _if_match(etag: str | None) -> dict[str, str]:
    return {} if etag is None else {"If-Match": etag}
