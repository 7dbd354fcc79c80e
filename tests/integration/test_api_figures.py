"""Figures, workers and the pace of queues over HTTP: right, bounded, and shown to whom they concern."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from api_app import Api, Person, api_settings, running_api
from taskflow_api.recent import Recent
from taskflow_api.schemas.stats import Stats
from taskflow_api.schemas.workers import WorkerDetail, WorkerResource
from taskflow_core import queues, stats
from taskflow_core.models.users import Role
from taskflow_core.settings import Settings

URL = "/api/v1"
END = """
UPDATE tasks SET status = :status, finished_at = now(), attempt = 1, error = CAST(:error AS jsonb),
  enqueued_at = now() - interval '7 seconds', claimed_at = now() - interval '5 seconds' WHERE id = CAST(:id AS uuid)
"""
REGISTER = """
INSERT INTO workers (id, name, hostname, pid, queues, slots, version, heartbeat_at, state)
VALUES (:id, 'w', 'h', 1, '{default}', 4, '1.2', now() - make_interval(secs => :age), :state)
"""
RUN = """
UPDATE tasks SET status = 'RUNNING', worker_id = 'w-1', lease_expires_at = now(), attempt = 1, claimed_at = now()
WHERE id = CAST(:id AS uuid)
"""


@pytest.fixture
async def api(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    monkeypatch.setattr("taskflow_api.app.RECENT_S", 0.0)
    async with running_api(api_settings(settings)) as api:
        yield api


@pytest.fixture
async def ada(api: Api) -> Person:
    return await api.person("ada")


@pytest.fixture
async def operator(api: Api) -> Person:
    return await api.person("operator", role=Role.OPERATOR)


async def read(api: Api, person: Person, path: str, **query: Any) -> Any:
    answer = await api.client.get(f"{URL}/{path}", params=query, headers=person.headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def end(api: Api, task: dict[str, Any], status: str, error: str | None = None) -> None:
    kind = f"task.{status.lower()}"
    await api.sql(END, id=task["id"], status=status, error=error)
    await api.sql(
        "INSERT INTO task_events (task_id, owner_id, kind, attempt) VALUES (:id, :owner_id, :kind, 1)",
        id=task["id"],
        owner_id=task["owner_id"],
        kind=kind,
    )


async def test_figures_count_ones_own_tasks_and_an_operators_count_all(api: Api, ada: Person, operator: Person) -> None:
    bob = await api.person("bob")
    await api.task(bob)
    await api.task(ada)
    for _ in range(2):
        await end(api, await api.task(ada), "COMPLETED")
    await end(api, await api.task(ada), "FAILED", '{"code": "timeout", "message": "m"}')
    old = await api.task(ada)
    await api.sql("UPDATE tasks SET created_at = now() - interval '2 hours' WHERE id = :id", id=old["id"])
    figures = await read(api, ada, "stats")
    Stats.model_validate(figures)
    assert figures["totals"] == {"PENDING": 1, "RUNNING": 0, "COMPLETED": 2, "FAILED": 1, "CANCELED": 0}
    (letters,) = figures["types"]
    assert (letters["type"], letters["total"], letters["completed"], letters["failed"]) == ("LETTER", 4, 2, 1)
    assert figures["failures"] == [{"code": "timeout", "total": 1}]
    assert figures["wait_s"] == {"p50": pytest.approx(2, abs=0.01), "p95": pytest.approx(2, abs=0.01)}
    assert figures["run_s"]["p50"] == pytest.approx(5, abs=0.01)
    assert figures["complete"] is True
    bars = figures["throughput"]
    assert figures["bucket_s"] == 60
    assert len(bars) == 61
    assert [sum(bar[name] for bar in bars) for name in ("created", "completed", "failed", "canceled")] == [4, 2, 1, 0]
    moments = [datetime.fromisoformat(bar["at"]) for bar in bars]
    assert {later - earlier for earlier, later in itertools.pairwise(moments)} == {timedelta(seconds=60)}
    assert (await read(api, operator, "stats"))["totals"]["PENDING"] == 2
    day = await read(api, ada, "stats", window_s=86_400)
    assert (day["totals"]["PENDING"], day["bucket_s"], len(day["throughput"])) == (2, 900, 97)


async def test_a_window_without_tasks_has_empty_figures(api: Api, ada: Person) -> None:
    figures = await read(api, ada, "stats", window_s=60)
    assert set(figures["totals"].values()) == {0}
    assert (figures["types"], figures["failures"], figures["wait_s"]) == ([], [], {"p50": None, "p95": None})


async def test_figures_of_too_many_tasks_are_of_the_newest_and_say_so(
    api: Api, ada: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stats, "MAX_TASKS", 2)
    for _ in range(3):
        await api.task(ada)
    figures = await read(api, ada, "stats")
    assert (figures["totals"]["PENDING"], figures["complete"]) == (2, False)


@pytest.mark.parametrize("window", ["59", "86401", "x", "-1", "1e3", ""])
async def test_a_window_beyond_its_bounds_is_refused(api: Api, ada: Person, window: str) -> None:
    refused = await api.client.get(f"{URL}/stats", params={"window_s": window}, headers=ada.headers)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "window_s")


async def test_workers_show_what_they_run_and_whether_they_are_there(api: Api, ada: Person, operator: Person) -> None:
    for number, (age, state) in enumerate([(0, "running"), (1, "draining"), (60, "running")], start=1):
        await api.sql(REGISTER, id=f"w-{number}", age=age, state=state)
    task, other = await api.task(ada, title="busy"), await api.task(ada)
    await api.sql(RUN, id=task["id"])
    held = "UPDATE workers SET held = ARRAY[CAST(:a AS uuid), CAST(:b AS uuid), CAST(:a AS uuid)] WHERE id = 'w-1'"
    await api.sql(held, a=task["id"], b=other["id"])
    listed = (await read(api, operator, "workers"))["items"]
    assert set(listed[0]) == set(WorkerResource.model_fields)
    assert [(worker["id"], worker["state"], worker["busy"]) for worker in listed] == [
        ("w-1", "running", 1),
        ("w-2", "draining", 0),
        ("w-3", "lost", 0),
    ]
    assert 60 <= listed[2]["heartbeat_age_s"] < 120
    one = await read(api, operator, "workers/w-1")
    WorkerDetail.model_validate(one)
    assert [(running["id"], running["title"], running["attempt"]) for running in one["tasks"]] == [
        (task["id"], "busy", 1)
    ]
    first = await read(api, operator, "workers", limit=2)
    rest = await read(api, operator, "workers", limit=2, cursor=first["next_cursor"])
    assert ([worker["id"] for worker in first["items"] + rest["items"]], rest["next_cursor"]) == (
        ["w-1", "w-2", "w-3"],
        None,
    )
    assert (await api.client.get(f"{URL}/workers/gone", headers=operator.headers)).status_code == 404


@pytest.mark.parametrize("path", ["workers", "workers/w-1"])
async def test_a_user_sees_no_workers(api: Api, ada: Person, path: str) -> None:
    refused = await api.client.get(f"{URL}/{path}", headers=ada.headers)
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")


async def test_a_queue_shows_how_many_of_its_tasks_end_in_a_minute(
    api: Api, ada: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    for queue, status in (("mail", "COMPLETED"), ("mail", "FAILED"), ("low", "CANCELED")):
        await end(api, await api.task(ada, queue=queue), status)
    await api.task(ada, queue="mail")
    await api.task(ada, queue="idle")
    old = await api.task(ada, queue="mail")
    await end(api, old, "COMPLETED")
    await api.sql("UPDATE task_events SET created_at = now() - interval '2 minutes' WHERE task_id = :id", id=old["id"])
    rates = {item["name"]: item["finished_per_minute"] for item in (await read(api, ada, "queues"))["items"]}
    assert (rates["mail"], rates["idle"]) == (2.0, 0.0)
    monkeypatch.setattr(queues, "TAIL", 2)
    await end(api, await api.task(ada, queue="mail"), "COMPLETED")
    await api.sql(
        "UPDATE task_events SET created_at = now() - interval '15 seconds' "
        "WHERE created_at > now() - interval '1 minute'"
    )
    rates = {item["name"]: item["finished_per_minute"] for item in (await read(api, ada, "queues"))["items"]}
    assert 3 < rates["mail"] <= 4, "one in the 15 seconds that the tail covers"


async def test_a_dear_answer_is_made_by_one_request_and_kept_for_a_moment() -> None:
    made = 0

    async def make() -> int:
        nonlocal made
        await asyncio.sleep(0)
        made += 1
        return made

    recent = Recent(keep_s=60, most=2)
    assert await asyncio.gather(*(recent.get("a", make) for _ in range(10))) == [1] * 10
    assert [await recent.get(key, make) for key in ("b", "c", "a")] == [2, 3, 4], "two are kept"
    assert await Recent(keep_s=0).get("a", make) == 5


async def test_an_answer_that_could_not_be_made_is_made_by_the_next() -> None:
    recent = Recent(keep_s=60)

    async def fail() -> int:
        raise ConnectionError

    async def make() -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)

    with pytest.raises(ConnectionError):
        await recent.get("a", fail)
    assert (await recent.get("a", make)).year == 2026
