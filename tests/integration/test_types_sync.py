"""SYNC against real HTTP servers and PostgreSQL: counts are exact, also when an attempt is lost in the middle."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlmodel import col

from fake_context import FakeContext, context, run
from http_server import Answer, Asked, serving
from taskflow_core.database import Sessions
from taskflow_core.handlers import NonRetryable, Retry, TaskCanceled
from taskflow_core.models.effects import SyncedRecord
from taskflow_core.settings import Settings, load
from taskflow_worker.types.sync import run as sync_run
from taskflow_worker.types.sync.task import sync_records
from waiting import eventually_async


@pytest.fixture(autouse=True)
def worker_settings(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TASKFLOW_DATABASE_URL", settings.database_url.get_secret_value())
    monkeypatch.setenv("TASKFLOW_REDIS_URL", settings.redis_url.get_secret_value())
    monkeypatch.setenv("TASKFLOW_FETCH_ALLOW_HOSTS", "127.0.0.1")
    load.cache_clear()
    yield
    load.cache_clear()


@pytest.fixture
async def ctx(sessions: Sessions) -> FakeContext:
    return await context(sessions, "SYNC")


def as_json(value: Any, **headers: str) -> Answer:
    return Answer(200, json.dumps(value).encode(), {"Content-Type": "application/json", **headers})


def payload(url: str, target: dict[str, Any] | None = None, **source: Any) -> dict[str, Any]:
    return {"source": {"url": url, **source}, "key": "id", "target": target or {"collection": "things"}}


def counts(result: dict[str, Any]) -> tuple[int, int, int, int]:
    return result["created"], result["updated"], result["unchanged"], result["rejected"]


async def kept(ctx: FakeContext, collection: str = "things") -> dict[str, Any]:
    async with ctx.new_session() as session:
        rows = await session.scalars(
            select(SyncedRecord)
            .where(col(SyncedRecord.owner_id) == ctx.owner_id, col(SyncedRecord.collection) == collection)
            .order_by(col(SyncedRecord.key))
        )
        return {row.key: row.data for row in rows}


async def again(ctx: FakeContext) -> FakeContext:
    return await context(ctx.sessions, "SYNC", ctx.owner_id)


async def test_records_are_created_then_updated_or_unchanged(ctx: FakeContext) -> None:
    records: list[Any] = [{"id": n, "v": 1} for n in range(5)]
    with serving(lambda _: as_json(records)) as server:
        assert counts(await run(ctx, sync_records, payload(server.url()))) == (5, 0, 0, 0)
        records[1:3] = [{"v": 2, "id": 1}, {"v": 2, "id": 2}]
        records += [{"id": 9}, {"no": "key"}, "text"]
        result = await run(await again(ctx), sync_records, payload(server.url()))
        assert counts(result) == (1, 2, 3, 2)
        assert result["records"] == 8
        assert result["reasons"] == ["record 7 has no text or whole number at 'id'", "record 8 is not an object"]
    assert (await kept(ctx))["1"] == {"id": 1, "v": 2}
    assert len(await kept(ctx)) == 6


async def test_what_json_allows_arrives_unharmed_and_the_rest_is_rejected(ctx: FakeContext) -> None:
    body = (
        rb'[{"id":"a","n":12345678901234567890123,"s":"\\u0000 \u2028 \ud83d\ude00"},'
        rb'{"id":"b","s":"\u0000"},{"id":"c","s":"\ud800"},{"id":"d","n":1e999}]'
    )
    with serving(lambda _: Answer(200, body)) as server:
        result = await run(ctx, sync_records, payload(server.url()))
    assert counts(result) == (1, 0, 0, 3)
    async with ctx.new_session() as session:
        stored = await session.scalar(text("SELECT data->>'n' FROM synced_records"))
    assert stored == "12345678901234567890123"
    assert (await kept(ctx))["a"]["s"] == "\\u0000 \u2028 \U0001f600"


async def test_an_attempt_lost_in_the_middle_leaves_nothing_and_the_next_counts_exactly(
    ctx: FakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync_run, "TABLE_BATCH", 10)
    records = [{"id": n} for n in range(35)]
    with serving(lambda _: as_json(records, ETag='"1"')) as server:
        lost = FakeContext(ctx.sessions, ctx.task_id, ctx.owner_id)
        progress = lost.progress

        def die(done: float, total: float | None = None, message: str = "") -> None:
            progress(done, total, message)
            if done == 20:
                raise ConnectionError("the worker is gone")

        monkeypatch.setattr(lost, "progress", die)
        with pytest.raises(ConnectionError):
            await run(lost, sync_records, payload(server.url()))
        assert await kept(ctx) == {}
        result = await run(ctx, sync_records, payload(server.url()))
    assert counts(result) == (35, 0, 0, 0)
    assert result["not_modified"] is False
    assert [report[0] for report in ctx.reports] == [1, 10, 20, 30, 35]


async def test_a_source_that_did_not_change_is_not_read_again(ctx: FakeContext) -> None:
    def answer(asked: Asked) -> Answer:
        if asked.headers.get("if-none-match") == '"1"':
            return Answer(304)
        return as_json([{"id": 1}], ETag='"1"')

    with serving(answer) as server:
        assert counts(await run(ctx, sync_records, payload(server.url()))) == (1, 0, 0, 0)
        result = await run(await again(ctx), sync_records, payload(server.url()))
        assert (result["not_modified"], result["pages"], counts(result)) == (True, 0, (0, 0, 0, 0))
        differently = payload(server.url(), records_path=None, headers={"X-Tenant": "2"})
        assert (await run(await again(ctx), sync_records, differently))["not_modified"] is False
        other = payload(server.url(), {"collection": "others"})
        assert counts(await run(await again(ctx), sync_records, other)) == (1, 0, 0, 0)
        stranger = await context(ctx.sessions, "SYNC")
        assert counts(await run(stranger, sync_records, payload(server.url()))) == (1, 0, 0, 0)


async def test_a_paged_source_is_always_read_whole(ctx: FakeContext) -> None:
    pages: dict[str, list[Any]] = {"1": [{"id": 1}], "2": [{"id": 2}], "3": []}
    kind = {"kind": "page_param"}
    with serving(lambda asked: as_json(pages[asked.path[-1]], ETag='"1"')) as server:
        result = await run(ctx, sync_records, payload(server.url(), pagination=kind))
        assert (counts(result), result["pages"]) == ((2, 0, 0, 0), 3)
        pages["2"] = [{"id": 2, "v": 1}]
        assert counts(await run(await again(ctx), sync_records, payload(server.url(), pagination=kind))) == (0, 1, 1, 0)
        assert all("if-none-match" not in one.headers for one in server.asked)


async def test_links_and_fields_lead_through_the_pages_and_headers_stay_on_the_source(ctx: FakeContext) -> None:
    headers = {"Authorization": "Bearer s"}
    with serving(lambda _: as_json({"data": {"items": [{"id": 3}]}})) as elsewhere:

        def answer(asked: Asked) -> Answer:
            after = {"/": "/two", "/two": elsewhere.url("/three")}[asked.path]
            return as_json({"data": {"items": [{"id": asked.path}]}, "next": after}, Link=f'<{after}>; rel="next"')

        with serving(answer) as server:
            for kind in ({"kind": "link_header"}, {"kind": "next_field", "path": "next"}):
                request = payload(server.url(), records_path="data.items", headers=headers, pagination=kind)
                assert (await run(await again(ctx), sync_records, request))["pages"] == 3
            assert {one.headers.get("authorization") for one in server.asked} == {"Bearer s"}
    assert [one.headers.get("authorization") for one in elsewhere.asked] == [None, None]
    assert set(await kept(ctx)) == {"/", "/two", "3"}


@pytest.mark.parametrize(
    ("bounds", "records", "pages"), [({"max_pages": 2}, 4, 2), ({"max_records": 3}, 3, 2), ({"max_records": 4}, 4, 2)]
)
async def test_a_sync_stops_at_its_bounds_and_says_so(
    ctx: FakeContext, bounds: dict[str, Any], records: int, pages: int
) -> None:
    def answer(asked: Asked) -> Answer:
        page = int(asked.path.partition("=")[2])
        return as_json([{"id": page * 2}, {"id": page * 2 + 1}])

    with serving(answer) as server:
        result = await run(ctx, sync_records, payload(server.url(), pagination={"kind": "page_param"}, **bounds))
    assert (result["truncated"], result["records"], result["pages"]) == (True, records, pages)
    assert len(await kept(ctx)) == records


@pytest.mark.parametrize("kind", [{"kind": "link_header"}, {"kind": "page_param"}])
async def test_a_source_that_repeats_itself_is_left(ctx: FakeContext, kind: dict[str, str]) -> None:
    with serving(lambda _: as_json([{"id": 1}], Link='</>; rel="next"')) as server:
        with pytest.raises(NonRetryable) as caught:
            await run(ctx, sync_records, payload(server.url(), pagination=kind))
        assert caught.value.code == "pagination_loop"
        assert len(server.asked) <= 2
    assert await kept(ctx) == {}


async def test_csv_is_known_by_its_type_or_by_the_payload(ctx: FakeContext) -> None:
    body = b'\xef\xbb\xbfid,name\r\n1,"a, b"\r\n2\r\n'
    with serving(lambda _: Answer(200, body, {"Content-Type": "text/csv; charset=utf-8"})) as server:
        result = await run(ctx, sync_records, payload(server.url()))
        assert (counts(result), result["reasons"]) == (
            (1, 0, 0, 1),
            ["record 2 has not as many fields as the header"],
        )
    with serving(lambda _: Answer(200, body)) as server:
        assert counts(await run(await again(ctx), sync_records, payload(server.url(), format="csv"))) == (0, 0, 1, 1)
    assert await kept(ctx) == {"1": {"id": "1", "name": "a, b"}}


async def test_of_records_with_one_key_the_last_is_kept(ctx: FakeContext) -> None:
    with serving(lambda _: as_json([{"id": 1, "v": 1}, {"id": 2}, {"id": "1", "v": 2}])) as server:
        result = await run(ctx, sync_records, payload(server.url()))
    assert counts(result) == (2, 0, 0, 1)
    assert result["reasons"] == ["key '1' came again in a later record"]
    assert (await kept(ctx))["1"] == {"id": "1", "v": 2}


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (Answer(404), "source_refused"),
        (Answer(401), "source_refused"),
        (Answer(304), "source_refused"),
        (Answer(200, b"<html>"), "source_malformed"),
        (Answer(200, b'{"data": []}'), "source_malformed"),
        (Answer(200, b"x", {"Content-Encoding": "br"}), "unsupported_encoding"),
        (Answer(302, b"", {"Location": "http://10.0.0.1/"}), "address_refused"),
    ],
)
async def test_what_another_attempt_cannot_mend_fails_the_task(ctx: FakeContext, answer: Answer, code: str) -> None:
    with serving(lambda _: answer) as server, pytest.raises(NonRetryable) as caught:
        await run(ctx, sync_records, payload(server.url()))
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("answer", "after"),
    [
        (Answer(429, b"", {"Retry-After": "30"}), timedelta(seconds=30)),
        (Answer(503, b"", {"Retry-After": "5"}), timedelta(seconds=5)),
        (Answer(500), None),
        (Answer(408), None),
    ],
)
async def test_what_may_pass_is_tried_again_when_the_source_says(
    ctx: FakeContext, answer: Answer, after: timedelta | None
) -> None:
    with serving(lambda _: answer) as server, pytest.raises(Retry) as caught:
        await run(ctx, sync_records, payload(server.url()))
    assert caught.value.after == after


async def test_a_private_source_is_refused_unless_an_operator_opened_it(
    ctx: FakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKFLOW_FETCH_ALLOW_HOSTS", "")
    load.cache_clear()
    with serving(lambda _: as_json([])) as server:
        for target in (None, {"url": server.url("/t")}):
            with pytest.raises(NonRetryable, match="TASKFLOW_FETCH_ALLOW_HOSTS") as caught:
                await run(ctx, sync_records, payload(server.url(), target))
            assert caught.value.code == "address_refused"
        assert server.asked == []


async def test_a_source_that_hangs_does_not_hold_a_canceled_task(ctx: FakeContext) -> None:
    over = threading.Event()

    def answer(_: Asked) -> Answer:
        over.wait(30)
        return as_json([])

    with serving(answer) as server:
        task = asyncio.ensure_future(run(ctx, sync_records, payload(server.url())))
        await eventually_async(lambda: asked(server.asked))
        ctx.canceled = True
        try:
            with pytest.raises(TaskCanceled):
                await asyncio.wait_for(task, 10)
        finally:
            over.set()


async def asked(requests: list[Asked]) -> bool:
    return bool(requests)


def service(refuse: Callable[[Asked], int | None]) -> tuple[dict[str, Any], Callable[[Asked], Answer]]:
    """Return the store of an HTTP target and the function that answers for it."""
    store: dict[str, Any] = {}

    def answer(request: Asked) -> Answer:
        if request.method == "GET":
            return as_json([{"id": n, "v": 1} for n in ("a", "b/c", "d e")])
        if (status := refuse(request)) is not None:
            return Answer(status)
        key, value = request.path.rpartition("/")[2], json.loads(request.body)
        status = 201 if key not in store else 304 if store[key] == value else 204
        store[key] = value
        return Answer(status)

    return store, answer


async def test_an_http_target_gets_each_record_once_with_a_stable_key(ctx: FakeContext) -> None:
    down = {"/t/d%20e"}
    store, answer = service(lambda request: 503 if request.path in down else None)
    with serving(answer) as server:
        request = payload(server.url(), {"url": server.url("/t/"), "headers": {"Authorization": "Bearer t"}})
        with pytest.raises(Retry, match="target answered 503"):
            await run(ctx, sync_records, request)
        down.clear()
        assert counts(await run(ctx, sync_records, request)) == (1, 0, 2, 0)
        puts = [one for one in server.asked if one.method == "PUT"]
        assert [one.path for one in puts] == ["/t/a", "/t/b%2Fc", "/t/d%20e", "/t/d%20e"]
        assert puts[2].headers["idempotency-key"] == puts[3].headers["idempotency-key"]
        assert len({one.headers["idempotency-key"] for one in puts}) == 3
        assert {one.headers["authorization"] for one in puts} == {"Bearer t"}
        assert store["a"] == {"id": "a", "v": 1}
        assert counts(await run(await again(ctx), sync_records, request)) == (0, 0, 3, 0)
        assert len([one for one in server.asked if one.method == "PUT"]) == 4
        request["target"]["push_unchanged"] = True
        store["a"] = "changed behind our back"
        assert counts(await run(await again(ctx), sync_records, request)) == (0, 1, 2, 0)


async def test_a_target_may_refuse_one_record_or_the_whole_sync(ctx: FakeContext) -> None:
    refuse: dict[str, int] = {"/t/a": 422}
    _, answer = service(lambda request: refuse.get(request.path))
    with serving(answer) as server:
        request = payload(server.url(), {"url": server.url("/t")})
        result = await run(ctx, sync_records, request)
        assert counts(result) == (2, 0, 0, 1)
        assert result["reasons"] == ["key 'a': the target answered 422"]
        refuse["/t/a"] = 403
        with pytest.raises(NonRetryable) as caught:
            await run(await again(ctx), sync_records, request)
        assert caught.value.code == "target_refused"


async def test_two_syncs_of_one_collection_at_once_both_end_and_count_each_record_once(ctx: FakeContext) -> None:
    records = [{"id": n} for n in range(200)]
    turned = list(reversed(records))
    with serving(lambda asked: as_json(records if asked.path == "/a" else turned)) as server:
        other = await again(ctx)
        results = await asyncio.gather(
            run(ctx, sync_records, payload(server.url("/a"))), run(other, sync_records, payload(server.url("/b")))
        )
    assert sum(one["created"] for one in results) == 200
    assert sum(one["unchanged"] for one in results) == 200
    assert len(await kept(ctx)) == 200
