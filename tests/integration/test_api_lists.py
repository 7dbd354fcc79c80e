"""Lists of tasks: each filter chooses what it says, no filter is read as SQL, and pages stay bounded."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from httpx2 import Response
from sqlalchemy import text

from api_app import Api, Person, api_settings, running_api
from taskflow_api.schemas.tasks import ListQuery
from taskflow_core import listing
from taskflow_core.models.users import Role
from taskflow_core.settings import Settings

URL = "/api/v1/tasks"
BATCH, SCHEDULE = str(uuid4()), str(uuid4())
END = """
UPDATE tasks SET status = :status, finished_at = '2026-03-01T12:00:00Z', attempt = 1,
  error = jsonb_build_object('code', 'smtp_refused', 'message', 'Mailbox full 100%') WHERE title = :title
"""
CUT = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'taskflow-api-lists'
"""
RUN = "UPDATE tasks SET status = 'RUNNING', worker_id = 'w', lease_expires_at = now(), attempt = 1 WHERE title = 'Runs'"
NASTY = [
    "' OR 1=1 --",
    "'; DROP TABLE tasks; --",
    '" OR ""="',
    "\\",
    "%",
    "_",
    "$1",
    ":owner",
    "%(id)s",
    "{0}",
    "a') UNION SELECT password_hash FROM users --",
    "\u202egnp.exe",
    "😀" * 10,
]


@pytest.fixture(scope="module")
async def api(module_settings: Settings) -> AsyncIterator[Api]:
    async with running_api(api_settings(module_settings)) as api:
        yield api


@pytest.fixture(scope="module")
async def ada(api: Api) -> Person:
    """Return a user with six tasks, named by their titles."""
    ada = await api.person("ada")
    made: dict[str, dict[str, Any]] = {
        "Waits": {"tags": ["red"], "queue": "low"},
        "Later": {"delay_s": 3600, "dedup_key": "invoice-7"},
        "Runs": {},
        "Fails": {"tags": ["red", "blue"]},
        "Ends": {"queue": "low"},
        "Stops": {},
    }
    for title, fields in made.items():
        await api.task(ada, title=title, **fields)
    await api.sql(RUN)
    for title, status in (("Fails", "FAILED"), ("Ends", "COMPLETED"), ("Stops", "CANCELED")):
        await api.sql(END, title=title, status=status)
    await api.sql("UPDATE tasks SET error = NULL WHERE title = 'Ends'")
    await api.sql("UPDATE tasks SET type = 'OTHER', batch_id = :id WHERE title = 'Waits'", id=BATCH)
    await api.sql("UPDATE tasks SET schedule_id = :id, fire_at = now() WHERE title = 'Runs'", id=SCHEDULE)
    return ada


async def listed(api: Api, person: Person, query: Any) -> Response:
    return await api.client.get(URL, params=query, headers=person.headers)


def titles(answer: Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [item["title"] for item in answer.json()["items"]]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ([("status", "FAILED"), ("status", "CANCELED")], "Stops Fails"),
        ([("status", "PENDING"), ("status", "RUNNING")], "Runs Later Waits"),
        ([("status", "RUNNING"), ("status", "COMPLETED"), ("status", "FAILED")], "Ends Fails Runs"),
        ([("status", "COMPLETED")], "Ends"),
        ([("type", "OTHER")], "Waits"),
        ([("type", "OTHER"), ("type", "LETTER"), ("queue", "low")], "Ends Waits"),
        ([("type", "GONE")], ""),
        ([("tag", "red"), ("status", "FAILED")], "Fails"),
        ([("batch_id", BATCH)], "Waits"),
        ([("schedule_id", SCHEDULE)], "Runs"),
        ([("error_code", "smtp_refused")], "Stops Fails"),
        ([("finished_from", "2026-03-01T12:00:00Z")], "Stops Ends Fails"),
        ([("finished_to", "2026-03-01T12:00:00Z")], ""),
        ([("finished_from", "2026-03-01T11:00:00Z"), ("finished_to", "2026-03-01T12:00:01Z")], "Stops Ends Fails"),
        ([("created_from", "2001-01-01T00:00:00Z"), ("created_to", "2001-01-02T00:00:00Z")], ""),
        ([("q", "fAiL")], "Fails"),
        ([("q", "invoice-")], "Later"),
        ([("q", "mailbox FULL")], "Stops Fails"),
        ([("q", "smtp_")], "Stops Fails"),
        ([("q", "100%")], "Stops Fails"),
        ([("q", "1__%")], ""),
        ([("q", "%")], "Stops Fails"),
        ([("order", "oldest"), ("status", "PENDING")], "Waits Later"),
    ],
)
async def test_a_filter_chooses_on_every_kind_of_page_and_in_the_count(
    api: Api, ada: Person, query: list[tuple[str, str]], expected: str
) -> None:
    by_cursor = await listed(api, ada, [*query, ("count", "exact")])
    by_number = await listed(api, ada, [*query, ("page", "1")])
    assert titles(by_cursor) == titles(by_number) == expected.split()
    for answer in (by_cursor, by_number):
        assert (answer.json()["total"], answer.json()["total_kind"]) == (len(expected.split()), "exact")
    assert by_cursor.json()["next_cursor"] is None


async def test_a_task_is_found_by_how_its_id_begins(api: Api, ada: Person) -> None:
    tasks = (await listed(api, ada, {})).json()["items"]
    wanted = tasks[2]
    for q in (wanted["id"], wanted["id"].upper(), wanted["id"][:30]):
        assert wanted["title"] in titles(await listed(api, ada, {"q": q}))
    assert titles(await listed(api, ada, {"q": wanted["id"]})) == [wanted["title"]]
    assert titles(await listed(api, ada, {"q": "f" * 12})) == []


async def test_an_item_is_byte_by_byte_what_the_task_itself_answers(api: Api, ada: Person) -> None:
    page = await listed(api, ada, {})
    for item in page.json()["items"]:
        task = await api.client.get(f"{URL}/{item['id']}", headers=ada.headers)
        assert page.content.count(task.content) == 1


async def test_a_page_is_read_anew_when_its_connections_have_died(api: Api, ada: Person) -> None:
    whole = (await listed(api, ada, {})).content
    assert await api.fetch(CUT) == [(True,)]
    assert (await listed(api, ada, {})).content == whole


async def test_created_moments_are_bounds_to_the_millisecond(api: Api, ada: Person) -> None:
    tasks = (await listed(api, ada, {"order": "oldest"})).json()["items"]
    for task in tasks:
        moment = task["created_at"]
        later = {"created_from": moment}
        earlier = {"created_to": moment}
        expected = [item["title"] for item in tasks if item["created_at"] >= moment]
        assert titles(await listed(api, ada, later | {"order": "oldest"})) == expected
        assert len(titles(await listed(api, ada, earlier))) == len(tasks) - len(expected)


@pytest.mark.parametrize("order", ["newest", "oldest"])
@pytest.mark.parametrize("query", [{}, {"type": "LETTER"}])
async def test_pages_in_both_orders_hold_every_task_once(
    api: Api, ada: Person, order: str, query: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = titles(await listed(api, ada, query | {"order": order}))
    monkeypatch.setattr(listing, "LOOKED_THROUGH", 2)
    seen: list[str] = []
    cursor: dict[str, str] = {}
    for _ in range(5):
        page = await listed(api, ada, query | {"order": order, "limit": "2"} | cursor)
        seen += titles(page)
        if page.json()["next_cursor"] is None:
            break
        cursor = {"cursor": page.json()["next_cursor"]}
    assert seen == whole
    assert page.json()["next_cursor"] is None
    turned = {"order": "oldest" if order == "newest" else "newest"}
    assert (await listed(api, ada, query | turned | {"limit": "2"} | cursor)).json()["code"] == "bad_cursor"


async def test_a_rare_match_is_found_over_several_bounded_pages(
    api: Api, ada: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "LOOKED_THROUGH", 2)
    first = await listed(api, ada, {"q": "Waits"})
    assert titles(first) == []
    second = await listed(api, ada, {"q": "Waits", "cursor": first.json()["next_cursor"]})
    third = await listed(api, ada, {"q": "Waits", "cursor": second.json()["next_cursor"]})
    assert titles(second) + titles(third) == ["Waits"]


async def test_a_total_is_counted_up_to_a_bound_or_estimated(
    api: Api, ada: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await listed(api, ada, {})).json()["total_kind"] is None
    monkeypatch.setattr(listing, "COUNT_LIMIT", 4)
    counted = (await listed(api, ada, {"count": "exact", "limit": "1"})).json()
    assert (counted["total"], counted["total_kind"]) == (4, "at_least")
    for filters in ({}, {"q": "x", "tag": "red", "status": "FAILED", "created_from": "2020-01-01T00:00:00Z"}):
        guessed = (await listed(api, ada, {"count": "estimate"} | filters)).json()
        assert guessed["total_kind"] == "estimate"
        assert guessed["total"] >= 0


async def test_a_user_sees_none_of_anothers_tasks_whatever_they_ask_for(api: Api, ada: Person) -> None:
    bob = await api.person("bob")
    first = (await listed(api, ada, {})).json()["items"][0]
    for query in ({"q": first["id"]}, {"batch_id": BATCH}, {"schedule_id": SCHEDULE}, {"tag": "red"}, {"q": "a"}):
        for paging in ({"count": "exact"}, {"page": "1"}):
            answer = await listed(api, bob, query | paging)
            assert (titles(answer), answer.json()["total"]) == ([], 0)
    operator = await api.person("operator", role=Role.OPERATOR)
    assert titles(await listed(api, operator, {"batch_id": BATCH, "owner_id": ada.id})) == ["Waits"]


@pytest.mark.parametrize("name", ListQuery.model_fields)
async def test_what_looks_like_sql_is_only_text(api: Api, ada: Person, name: str) -> None:
    before = await api.rows()
    for value in NASTY:
        answer = await listed(api, ada, {name: value})
        if answer.status_code == 200:
            assert titles(answer) in ([], ["Stops", "Fails"]), (name, value)  # their error holds "%" and "_"
        else:
            assert (answer.status_code, answer.json()["errors"][0]["field"].partition(".")[0]) == (422, name)
    assert await api.rows() == before


async def test_a_list_is_read_by_an_index_and_not_sorted(api: Api, ada: Person) -> None:
    insert = """
    INSERT INTO tasks (id, owner_id, type, queue, lane, payload, created_at, status, finished_at)
    SELECT (lpad(to_hex(1600000000000 + n), 12, '0') || '7000800000000000' || lpad(to_hex(n), 4, '0'))::uuid,
      :owner, 'OLD', 'old', 'old', '{}', to_timestamp((1600000000000 + n) / 1000.0), 'COMPLETED', now()
    FROM generate_series(1, 3000) n
    """
    owner = str(uuid4())
    await api.sql(insert, owner=owner)
    await api.sql("ANALYZE tasks")
    statement = text("""
    EXPLAIN SELECT * FROM (SELECT * FROM tasks WHERE owner_id = CAST(:owner AS uuid) ORDER BY id DESC LIMIT 50000) t
    WHERE title ILIKE '%x%' ORDER BY id DESC LIMIT 21
    """)
    async with api.resources.sessions() as session:
        plan = "\n".join((await session.execute(statement, {"owner": owner})).scalars())
    assert "Sort" not in plan
    await api.sql("DELETE FROM tasks WHERE type = 'OLD'")
