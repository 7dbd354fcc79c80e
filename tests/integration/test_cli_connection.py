"""The commands' connection: stored logins, failures with a way on, tasks that are followed through faults."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scripted_api import TASK_ID, Answer, Asked, ScriptedApi, frames, scripted_api, stream, task
from taskflow_cli.batch import CHUNK_ITEMS, chunks, key_of
from taskflow_cli.connection import client_of, given_token
from taskflow_cli.credentials import Credentials, Login
from taskflow_cli.failures import BadInput, DeadlinePassed, Failure, Refused, Unreachable, render
from taskflow_cli.following import follow, follow_live
from taskflow_cli.location import Location

DONE = task(status="COMPLETED", state="COMPLETED")
LINE = {"id": 1, "attempt": 1, "level": "info", "message": "half", "fields": None, "at": "2026-01-01T00:00:00Z"}


@pytest.fixture
def api() -> Iterator[ScriptedApi]:
    with scripted_api() as running:
        yield running


@pytest.fixture
def credentials(tmp_path: Path) -> Credentials:
    return Credentials(tmp_path / "credentials.json")


def at(api: ScriptedApi) -> Location:
    return Location(api.url, "a test")


def store(credentials: Credentials, key: str, access: str, refresh: str) -> None:
    with credentials.lock():
        credentials.put(key, Login("ada@example.com", access, refresh))


def test_nobody_at_the_address_is_said_with_its_source_and_a_way_on() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        location = Location(f"http://127.0.0.1:{probe.getsockname()[1]}", "TASKFLOW_API_URL")
    with pytest.raises(Unreachable) as caught, client_of(location) as client:
        client.account.me()
    text = render(caught.value)
    assert f"cannot reach the API at {location.url} (from TASKFLOW_API_URL)" in text
    assert "taskflow up" in text


def test_a_server_that_is_no_taskflow_is_said(api: ScriptedApi) -> None:
    api.script(Answer(raw=b"<html>"))
    with pytest.raises(Unreachable, match="does not answer like TaskFlow"), client_of(at(api)) as client:
        client.tasks.get(TASK_ID)


def test_an_error_page_is_shown_by_its_status(api: ScriptedApi) -> None:
    api.script(Answer(500, raw=b"<html>"))
    with pytest.raises(Refused, match=r"Internal Server Error \(500\)"), client_of(at(api)) as client:
        client.tasks.get(TASK_ID)


def test_commands_at_the_same_time_renew_a_stored_login_once(api: ScriptedApi, credentials: Credentials) -> None:
    store(credentials, api.url, "old", "refresh-1")

    def reply(asked: Asked) -> Answer:
        if asked.path.endswith("/auth/refresh"):
            return Answer(200, {"access_token": "new", "refresh_token": "refresh-2", "expires_in": 900})
        return task() if asked.token == "new" else Answer(401, {"title": "Unauthorized"})

    def command(_: int) -> str:
        with client_of(at(api), credentials=credentials) as client:
            return client.tasks.get(TASK_ID).id

    api.reply = reply
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(command, range(4))) == [TASK_ID] * 4
    assert [asked.path for asked in api.asked].count("/api/v1/auth/refresh") == 1
    assert credentials.get(api.url) == Login("ada@example.com", "new", "refresh-2")


def test_a_session_that_has_ended_is_forgotten_and_asks_for_a_login(api: ScriptedApi, credentials: Credentials) -> None:
    store(credentials, api.url, "old", "used")
    api.script(Answer(401, {"title": "Unauthorized", "code": "invalid_token"}))
    with pytest.raises(Refused) as caught, client_of(at(api), credentials=credentials) as client:
        client.tasks.get(TASK_ID)
    assert caught.value.hint == "run: taskflow login"
    assert credentials.get(api.url) is None


def test_a_token_of_the_environment_that_is_refused_is_named(api: ScriptedApi) -> None:
    api.script(Answer(401, {"title": "Unauthorized"}))
    with pytest.raises(Refused) as caught, client_of(at(api), token="mine") as client:
        client.tasks.get(TASK_ID)
    assert "TASKFLOW_TOKEN" in caught.value.hint


def test_a_login_is_not_sent_to_another_api(api: ScriptedApi, credentials: Credentials) -> None:
    store(credentials, "http://127.0.0.1:1", "secret", "secret")
    api.script(task())
    with client_of(at(api), credentials=credentials) as client:
        client.tasks.get(TASK_ID)
    assert api.asked[0].token is None


def test_a_token_and_a_key_at_once_are_one_too_many() -> None:
    assert given_token({"TASKFLOW_API_KEY": "tf_a_b"}) == "tf_a_b"
    with pytest.raises(BadInput, match="both set"):
        given_token({"TASKFLOW_API_KEY": "tf_a_b", "TASKFLOW_TOKEN": "eyJ"})


def test_following_goes_on_through_an_outage(api: ScriptedApi) -> None:
    away = [Answer(503, {"title": "Service Unavailable"})] * 5
    api.script(task(), *away, DONE)
    with client_of(at(api)) as client:
        states = [seen.state for seen in follow(client, [TASK_ID], timeout_s=60)]
    assert states == ["PENDING", "COMPLETED"]


@pytest.mark.parametrize("answer", [Answer(cut=True), Answer(404, {"title": "Not Found", "code": "not_found"})])
def test_following_what_never_answered_or_does_not_exist_ends_at_once(api: ScriptedApi, answer: Answer) -> None:
    api.script(answer)
    with pytest.raises(Failure), client_of(at(api)) as client:
        list(follow(client, [TASK_ID], timeout_s=60))
    assert len(api.asked) <= 4


def test_following_stops_at_its_deadline(api: ScriptedApi) -> None:
    api.script(task(status="RUNNING", state="RUNNING"))
    with pytest.raises(DeadlinePassed) as caught, client_of(at(api)) as client:
        list(follow(client, [TASK_ID], timeout_s=0.3))
    assert caught.value.exit_code == 3
    assert caught.value.details == (TASK_ID,)


def test_a_task_is_followed_live_with_its_progress_and_what_it_logs(api: ScriptedApi) -> None:
    progress = ("task.progress", None, {"task_id": TASK_ID, "progress": {"done": 1, "total": 2}})
    completed = ("task.completed", 2, {"id": 2, "task_id": TASK_ID, "kind": "task.completed"})
    finished = ("end", None, {"reason": "finished"})
    looks = iter([task(status="RUNNING", state="RUNNING"), DONE])
    logged: list[str] = []

    def reply(asked: Asked) -> Answer:
        if asked.path.endswith("/events?limit=100"):
            return stream(frames(progress, completed, finished))
        return stream(frames(("log", 1, LINE), finished)) if "/logs" in asked.path else next(looks)

    api.reply = reply
    with client_of(at(api)) as client:
        seen = list(follow_live(client, TASK_ID, timeout_s=60, print_line=lambda line: logged.append(line.message)))
    assert [one.state for one in seen] == ["RUNNING", "RUNNING", "COMPLETED"]
    assert seen[1].progress is not None
    assert (seen[1].progress.done, logged) == (1, ["half"])


def test_a_task_is_followed_by_looking_where_nothing_streams(api: ScriptedApi) -> None:
    looks = iter([task(), task(), DONE])
    api.reply = lambda asked: Answer(404, {"title": "Not Found"}) if asked.path.count("/") > 4 else next(looks)
    with client_of(at(api)) as client:
        seen = list(follow_live(client, TASK_ID, timeout_s=60, print_line=lambda _: None))
    assert [one.state for one in seen] == ["PENDING", "PENDING", "COMPLETED"]


def test_a_file_is_cut_into_chunks_with_a_key_for_content_place_and_run(tmp_path: Path) -> None:
    file = tmp_path / "tasks.jsonl"
    file.write_text('{"type": "EMAIL"}\n\n' * (2 * CHUNK_ITEMS + 1))
    with file.open("rb") as source:
        found = list(chunks(source))
    assert [len(chunk.items) for chunk in found] == [CHUNK_ITEMS, CHUNK_ITEMS, 1]
    assert (found[0].lines[:2], found[2].lines) == ([1, 3], [4 * CHUNK_ITEMS + 1])
    keys = {key_of(found[0], run=run, number=number) for run in ("", "b") for number in (0, 1)}
    assert len(keys) == 4
    assert key_of(found[0], run="", number=0) == key_of(found[1], run="", number=0)


@pytest.mark.parametrize(("line", "words"), [("{", "line 2 is not JSON"), ("[]", "line 2 is not a JSON object")])
def test_a_line_that_is_no_task_is_named(tmp_path: Path, line: str, words: str) -> None:
    file = tmp_path / "tasks.jsonl"
    file.write_text(f"{{}}\n{line}\n")
    with file.open("rb") as source, pytest.raises(BadInput, match=words):
        list(chunks(source))
