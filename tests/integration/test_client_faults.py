"""Both clients against an API that fails in every way that a client can meet."""

import asyncio
import inspect
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from scripted_api import TASK, TASK_ID, Answer, Asked, ScriptedApi, frames, scripted_api, stream, task
from taskflow_client.aio import AsyncTaskFlow
from taskflow_client.errors import (
    Conflict,
    DeadlinePassed,
    Invalid,
    NotAuthenticated,
    NotFound,
    Problem,
    TooMany,
    Unavailable,
    UnexpectedAnswer,
    Unreachable,
)
from taskflow_client.exchange import Policy
from taskflow_client.sync import TaskFlow
from taskflow_client.tokens import MemoryStore, Tokens

FAST = Policy(first_pause_s=0.01, longest_pause_s=2)
AWAY = Answer(503, {"title": "Service Unavailable", "code": "unavailable"}, {"Retry-After": "0"})
PAIR = {"access_token": "new", "refresh_token": "refresh-2", "expires_in": 900}
FINISHED = ("end", None, {"reason": "finished"})

Use = Callable[[Any], Any]
Run = Callable[..., Any]


@pytest.fixture
def api() -> Iterator[ScriptedApi]:
    with scripted_api() as running:
        yield running


def in_threads(url: str, use: Use, **options: Any) -> Any:
    with TaskFlow(url, policy=FAST, **options) as client:
        made = use(client)
        return list(made) if inspect.isgenerator(made) else made


def on_a_loop(url: str, use: Use, **options: Any) -> Any:
    async def main() -> Any:
        async with AsyncTaskFlow(url, policy=FAST, **options) as client:
            made = use(client)
            if isinstance(made, AsyncIterator):
                return [item async for item in made]
            return await made

    return asyncio.run(main())


@pytest.fixture(params=[in_threads, on_a_loop])
def run(request: pytest.FixtureRequest) -> Run:
    """Return what has one of the clients do something."""
    chosen: Run = request.param
    return chosen


def read(client: Any) -> Any:
    return client.tasks.get(TASK_ID)


def submit(client: Any) -> Any:
    return client.tasks.create("EMAIL", {"to": []})


def retry(client: Any) -> Any:
    return client.tasks.retry(TASK_ID)


def event(identifier: int, kind: str, **more: Any) -> tuple[str, int, dict[str, Any]]:
    return kind, identifier, {"id": identifier, "task_id": TASK_ID, "kind": kind, **more}


def test_members_the_client_does_not_know_are_kept(api: ScriptedApi, run: Run) -> None:
    api.script(task())
    assert run(api.url, read).to_json() == TASK


def test_a_read_is_repeated_after_503_and_a_cut_connection(api: ScriptedApi, run: Run) -> None:
    api.script(AWAY, Answer(cut=True), task())
    assert run(api.url, read).id == TASK_ID
    assert len(api.asked) == 3


def test_a_read_is_repeated_a_few_times_only(api: ScriptedApi, run: Run) -> None:
    api.script(AWAY)
    with pytest.raises(Unavailable, match="503, unavailable"):
        run(api.url, read)
    assert len(api.asked) == 4


def test_a_wait_that_is_too_long_to_wait_is_the_callers(api: ScriptedApi, run: Run) -> None:
    api.script(Answer(429, {"title": "Too Many Requests", "code": "too_many"}, {"Retry-After": "60"}))
    with pytest.raises(TooMany) as caught:
        run(api.url, read)
    assert (caught.value.retry_after_s, len(api.asked)) == (60, 1)


def test_a_change_that_met_a_rate_limit_is_made_when_the_limit_allows_it(api: ScriptedApi, run: Run) -> None:
    api.script(Answer(429, {"title": "Too Many Requests"}, {"Retry-After": "1"}), task())
    assert run(api.url, retry).id == TASK_ID


@pytest.mark.parametrize(
    "answer", [AWAY, Answer(cut=True), Answer(409, {"title": "Conflict", "code": "idempotency_conflict"})]
)
def test_a_submission_that_may_have_arrived_is_repeated_under_its_key(
    api: ScriptedApi, run: Run, answer: Answer
) -> None:
    api.script(answer, task())
    run(api.url, submit)
    run(api.url, submit)
    first, again, other = [asked.headers["idempotency-key"] for asked in api.asked]
    assert first == again != other


def test_a_submission_that_the_api_refuses_is_not_repeated(api: ScriptedApi, run: Run) -> None:
    api.script(Answer(409, {"title": "Conflict", "code": "duplicate_task", "task_id": TASK_ID}))
    with pytest.raises(Conflict, match="duplicate_task") as caught:
        run(api.url, submit)
    assert (caught.value.document["task_id"], len(api.asked)) == (TASK_ID, 1)


@pytest.mark.parametrize("answer", [AWAY, Answer(cut=True)])
def test_a_change_without_a_key_that_may_have_arrived_is_not_repeated(
    api: ScriptedApi, run: Run, answer: Answer
) -> None:
    api.script(answer)
    with pytest.raises((Unavailable, Unreachable)):
        run(api.url, retry)
    assert len(api.asked) == 1


def test_a_problem_tells_its_fields_and_the_request(api: ScriptedApi, run: Run) -> None:
    wrong = [{"field": "payload.to", "message": "must hold an address"}]
    api.script(Answer(422, {"title": "Unprocessable", "code": "invalid", "request_id": "r-1", "errors": wrong}))
    with pytest.raises(Invalid) as caught:
        run(api.url, submit)
    assert caught.value.fields == (("payload.to", "must hold an address"),)
    assert (caught.value.code, caught.value.request_id) == ("invalid", "r-1")


def test_nobody_at_the_address_is_said(run: Run) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(Unreachable, match=f"cannot reach {url}"):
        run(url, read)


@pytest.mark.parametrize("answer", [Answer(raw=b"<html>"), Answer(body=[]), Answer(body={"id": 1})])
def test_a_server_that_is_no_taskflow_is_recognised(api: ScriptedApi, run: Run, answer: Answer) -> None:
    api.script(answer)
    with pytest.raises(UnexpectedAnswer, match="does not answer like TaskFlow"):
        run(api.url, read)


def test_an_error_page_that_is_no_problem_document_is_told_by_its_status(api: ScriptedApi, run: Run) -> None:
    api.script(Answer(502, raw=b"<html>"))
    with pytest.raises(Unavailable, match="502"):
        run(api.url, read)


def test_a_redirect_is_not_followed(api: ScriptedApi, run: Run) -> None:
    api.script(Answer(307, headers={"Location": "http://127.0.0.1:1/"}))
    with pytest.raises(Problem, match="307"):
        run(api.url, read, token="mine")


def renewing(api: ScriptedApi, *, together: int) -> None:
    """Have the API accept the token "new" alone, and refuse so many calls at the same time before."""
    refused = threading.Barrier(together)

    def reply(asked: Asked) -> Answer:
        if asked.path.endswith("/auth/refresh"):
            assert asked.body == {"refresh_token": "refresh-1"}
            return Answer(200, PAIR)
        if asked.token == "new":
            return task()
        refused.wait(timeout=20)
        return Answer(401, {"title": "Unauthorized"})

    api.reply = reply


def test_an_expired_access_token_is_renewed_and_kept(api: ScriptedApi, run: Run) -> None:
    store = MemoryStore(Tokens("old", "refresh-1"))
    renewing(api, together=1)
    assert run(api.url, read, store=store).id == TASK_ID
    assert store.load() == Tokens("new", "refresh-2")


def test_threads_that_need_a_token_at_the_same_time_share_one_renewal(api: ScriptedApi) -> None:
    renewing(api, together=4)
    with (
        TaskFlow(api.url, policy=FAST, store=MemoryStore(Tokens("old", "refresh-1"))) as client,
        ThreadPoolExecutor(4) as pool,
    ):
        assert [found.id for found in pool.map(client.tasks.get, [TASK_ID] * 4)] == [TASK_ID] * 4
    assert [asked.path for asked in api.asked].count("/api/v1/auth/refresh") == 1


def test_coroutines_that_need_a_token_at_the_same_time_share_one_renewal(api: ScriptedApi) -> None:
    renewing(api, together=4)

    async def four(client: AsyncTaskFlow) -> list[str]:
        return [found.id for found in await asyncio.gather(*(client.tasks.get(TASK_ID) for _ in range(4)))]

    assert on_a_loop(api.url, four, store=MemoryStore(Tokens("old", "refresh-1"))) == [TASK_ID] * 4
    assert [asked.path for asked in api.asked].count("/api/v1/auth/refresh") == 1


def test_a_session_that_has_ended_is_forgotten(api: ScriptedApi, run: Run) -> None:
    store = MemoryStore(Tokens("old", "used"))
    api.script(Answer(401, {"title": "Unauthorized", "code": "invalid_token"}))
    with pytest.raises(NotAuthenticated):
        run(api.url, read, store=store)
    assert store.load() is None


def test_a_given_token_is_never_renewed(api: ScriptedApi, run: Run) -> None:
    api.script(Answer(401, {"title": "Unauthorized"}))
    with pytest.raises(NotAuthenticated):
        run(api.url, read, token="mine", store=MemoryStore(Tokens("old", "refresh-1")))
    assert [asked.token for asked in api.asked] == ["mine"]


def test_a_list_is_followed_to_its_end(api: ScriptedApi, run: Run) -> None:
    pages = {None: ([TASK, TASK], "next"), "next": ([TASK], None)}

    def reply(asked: Asked) -> Answer:
        items, cursor = pages["next" if "cursor=next" in asked.path else None]
        return Answer(200, {"items": items, "next_cursor": cursor})

    api.reply = reply
    assert len(run(api.url, lambda client: client.tasks.list(status=["FAILED", "CANCELED"], limit=2))) == 3
    assert all("status=FAILED&status=CANCELED&limit=2" in asked.path for asked in api.asked)


@pytest.mark.parametrize("name", ["../up.csv", "a/b", "..", ""])
def test_a_file_name_cannot_leave_the_folder(api: ScriptedApi, run: Run, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="no plain file name"):
        run(api.url, lambda client: client.tasks.save(TASK_ID, name, tmp_path))
    assert api.asked == []


def test_a_download_that_breaks_leaves_no_file(api: ScriptedApi, run: Run, tmp_path: Path) -> None:
    api.script(Answer(raw=b"half", headers={"Content-Length": "100"}))
    with pytest.raises(Unreachable):
        run(api.url, lambda client: client.tasks.save(TASK_ID, "r.csv", tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_file_with_an_odd_name_is_asked_for_by_that_name(api: ScriptedApi, run: Run, tmp_path: Path) -> None:
    api.script(Answer(raw=b"a,b\n"))
    assert run(api.url, lambda client: client.tasks.save(TASK_ID, "a b?#%.csv", tmp_path)).read_bytes() == b"a,b\n"
    assert api.asked[0].path == f"/api/v1/tasks/{TASK_ID}/files/a%20b%3F%23%25.csv"


def test_a_stream_that_is_cut_goes_on_where_it_was(api: ScriptedApi, run: Run) -> None:
    whole = frames(event(3, "task.completed"), FINISHED)
    api.script(stream(frames(event(1, "task.created"), event(2, "task.claimed")) + whole[:30]), AWAY, stream(whole))
    seen = run(api.url, lambda client: client.tasks.events(TASK_ID))
    assert [(item.id, item.kind) for item in seen] == [
        (1, "task.created"),
        (2, "task.claimed"),
        (3, "task.completed"),
    ]
    assert [asked.headers.get("last-event-id") for asked in api.asked] == [None, "2", "2"]


def test_a_stream_that_has_nothing_more_to_say_ends(api: ScriptedApi, run: Run) -> None:
    api.script(stream(frames(event(1, "task.completed"))), Answer(204))
    assert len(run(api.url, lambda client: client.tasks.events(TASK_ID))) == 1


def test_a_stream_that_breaks_again_and_again_is_given_up(api: ScriptedApi, run: Run) -> None:
    api.script(stream(b""))
    with pytest.raises(Unreachable, match="broke 8 times"):
        run(api.url, lambda client: client.tasks.logs(TASK_ID))


def test_waiting_is_told_by_the_events(api: ScriptedApi, run: Run) -> None:
    done = task(status="COMPLETED", state="COMPLETED")
    api.script(stream(frames(event(1, "task.completed"), FINISHED)), done)
    assert run(api.url, lambda client: client.tasks.wait(TASK_ID)).has_ended
    assert len(api.asked) == 2


def test_waiting_looks_again_and_again_where_there_are_no_events(api: ScriptedApi, run: Run) -> None:
    api.script(Answer(404, {"title": "Not Found"}), task(), task(), task(status="FAILED", state="FAILED"))
    assert run(api.url, lambda client: client.tasks.wait(TASK_ID)).status == "FAILED"
    assert api.asked[-1].headers["prefer"] == "wait=25"


def test_waiting_for_what_does_not_exist_ends_at_once(api: ScriptedApi, run: Run) -> None:
    with pytest.raises(NotFound):
        run(api.url, lambda client: client.tasks.wait(TASK_ID))


def test_waiting_stops_at_its_deadline(api: ScriptedApi, run: Run) -> None:
    def reply(asked: Asked) -> Answer:
        return Answer(404, {"title": "Not Found"}) if asked.path.endswith("/events") else task()

    api.reply = reply
    with pytest.raises(DeadlinePassed):
        run(api.url, lambda client: client.tasks.wait(TASK_ID, timeout_s=0.3))
