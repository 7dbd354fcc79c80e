"""The client commands as real processes against a real platform, which `taskflow up` runs."""

import json
import stat
from pathlib import Path
from uuid import uuid4

import pytest

from cli_person import Person

MAIL = {"to": ["bob@example.com"], "subject": "Hello", "text": "A line."}
REFUSED_SYNC = {"source": {"url": "http://10.0.0.1/"}, "key": "id", "target": {"collection": "c"}}


@pytest.fixture
def stranger(platform: Path, tmp_path: Path) -> Person:
    return Person(platform, tmp_path, f"{uuid4().hex[:8]}@example.com")


@pytest.fixture
def ada(stranger: Person) -> Person:
    return stranger.register()


def test_registering_logs_in_and_keeps_the_tokens_for_the_owner_alone(ada: Person) -> None:
    assert stat.S_IMODE(ada.credentials.stat().st_mode) == 0o600
    me = ada.run("whoami", "--json")
    assert (me.json["email"], me.json["role"], me.json["api_url_from"]) == (
        ada.email,
        "USER",
        ".taskflow/platform.json",
    )


def test_a_wrong_password_is_the_apis_no(ada: Person) -> None:
    done = ada.run("login", ada.email, "--password-stdin", stdin="wrong password\n")
    assert (done.code, done.out) == (1, "")
    assert "Unauthorized (401, unauthenticated)" in done.err
    assert "request id" in done.err
    assert "taskflow login" not in done.err


def test_without_a_login_the_way_to_one_is_said(stranger: Person) -> None:
    done = stranger.run("ls")
    assert (done.code, done.err.splitlines()[-1]) == (1, "  -> run: taskflow login")


def test_a_token_of_the_environment_goes_before_the_login(ada: Person) -> None:
    token = json.loads(ada.credentials.read_text()).popitem()[1]["access_token"]
    ada.credentials.unlink()
    assert ada.run("whoami", TASKFLOW_TOKEN=token).code == 0
    assert ada.run("whoami", TASKFLOW_TOKEN="nonsense").code == 1


def test_an_access_token_that_is_no_good_is_renewed_behind_the_scenes(ada: Person) -> None:
    entries = json.loads(ada.credentials.read_text())
    (url, before) = next(iter(entries.items()))
    ada.credentials.write_text(json.dumps({url: before | {"access_token": "expired"}}))
    assert ada.run("whoami").code == 0
    after = json.loads(ada.credentials.read_text())[url]
    assert after["access_token"] != "expired"
    assert after["refresh_token"] != before["refresh_token"]
    assert ada.run("whoami").code == 0


def test_logging_out_ends_the_session_at_the_api_too(ada: Person) -> None:
    before = ada.credentials.read_text()
    assert ada.run("logout", "--json").json["ended_at_api"] is True
    assert json.loads(ada.credentials.read_text()) == {}
    url = next(iter(json.loads(before)))
    entries = json.loads(before)
    entries[url]["access_token"] = "expired"
    ada.credentials.write_text(json.dumps(entries))
    assert ada.run("whoami").code == 1, "the refresh token must be dead"


def test_a_watched_submission_leaves_with_0_and_prints_only_its_result(ada: Person) -> None:
    done = ada.run("submit", "EMAIL", "--payload", json.dumps(MAIL), "--title", "Hi", "--watch", "--json")
    assert done.code == 0, done.err
    assert (done.json["status"], done.json["title"]) == ("COMPLETED", "Hi")
    assert done.json["result"]["accepted"] == MAIL["to"]
    assert f"EMAIL  {done.json['id']} COMPLETED" in done.err


def test_a_task_that_failed_leaves_with_1_and_can_be_retried(ada: Person) -> None:
    done = ada.run("submit", "SYNC", "--payload", json.dumps(REFUSED_SYNC), "--watch")
    assert done.code == 1
    assert "address_refused" in done.out
    (task,) = ada.run("ls", "--status", "FAILED", "--json").json
    assert ada.run("retry", task["id"]).code == 0
    assert ada.run("watch", task["id"]).code == 1


def test_failed_tasks_are_listed_with_their_errors_and_retried_together(ada: Person) -> None:
    for _ in range(2):
        assert ada.run("submit", "SYNC", "--payload", json.dumps(REFUSED_SYNC), "--watch").code == 1
    rows = ada.run("dead-letters", "ls").out.splitlines()[1:]
    assert [line.split()[4] for line in rows] == ["address_refused"] * 2
    assert ada.run("dead-letters", "ls", "--error-code", "timeout", "--json").json == []
    asked = ada.run("dead-letters", "retry", "--type", "SYNC")
    assert (asked.code, "2 FAILED tasks match" in asked.err, "--yes" in asked.err) == (2, True, True)
    done = ada.run("dead-letters", "retry", "--type", "SYNC", "--yes")
    assert (done.code, done.out) == (0, "Retried 2 of 2 FAILED tasks.\n")
    assert ada.run("dead-letters", "retry", "--type", "EMAIL", "--json").json == {"retried": 0, "skipped": 0}


def test_watching_past_the_deadline_leaves_with_3_and_a_canceled_task_with_1(ada: Person) -> None:
    task_id = ada.submit("EMAIL", MAIL, "--delay", "3600")
    late = ada.run("watch", task_id, "--timeout", "0.2")
    assert (late.code, late.out) == (3, "")
    assert f"{task_id} SCHEDULED" in late.err
    assert ada.run("cancel", task_id, "--json").json["status"] == "CANCELED"
    assert ada.run("watch", task_id).code == 1
    again = ada.run("cancel", task_id)
    assert again.code == 1
    assert "illegal_transition" in again.err


def test_a_second_task_of_a_deduplication_key_is_refused(ada: Person) -> None:
    ada.submit("EMAIL", MAIL, "--delay", "3600", "--dedup-key", "once")
    done = ada.run("submit", "EMAIL", "--payload", json.dumps(MAIL), "--dedup-key", "once")
    assert done.code == 1
    assert "duplicate_task" in done.err


def test_every_wrong_field_of_a_payload_is_named(ada: Person) -> None:
    done = ada.run("submit", "EMAIL", "--payload", '{"to": []}')
    assert done.code == 1
    assert "- payload.to: " in done.err
    assert "- payload.subject: " in done.err


def test_listing_all_follows_pages_and_shows_whole_ids(ada: Person) -> None:
    ids = [ada.submit("EMAIL", MAIL, "--delay", "3600") for _ in range(3)]
    newest = ada.run("ls", "--limit", "2", "--json").json
    assert [task["id"] for task in newest] == ids[:0:-1]
    assert [task["id"] for task in ada.run("ls", "--all", "--json").json] == ids[::-1]
    assert ada.run("ls", "--type", "SYNC", "--json").json == []
    table = ada.run("ls").out.splitlines()
    assert table[0].split() == ["ID", "TYPE", "STATE", "AGE", "QUEUE", "TITLE"]
    assert [line.split()[0] for line in table[1:]] == ids[::-1]


def test_a_task_of_somebody_else_does_not_exist(ada: Person, platform: Path, tmp_path: Path) -> None:
    task_id = ada.submit("EMAIL", MAIL, "--delay", "3600")
    assert json.dumps(MAIL["subject"]) in ada.run("show", task_id).out
    bob = Person(platform, tmp_path / "bob", f"{uuid4().hex[:8]}@example.com").register()
    done = bob.run("show", task_id)
    assert (done.code, done.out) == (1, "")
    assert "404" in done.err


def test_a_title_cannot_steer_the_terminal_of_who_lists_it(ada: Person) -> None:
    ada.submit("EMAIL", MAIL, "--delay", "3600", "--title", "[red]x[/red] \u202egnp")
    out = ada.run("ls").out
    assert "[red]x[/red]" in out
    assert "\u202e" not in out


def test_the_demo_completes_every_type_and_finds_its_mail(stranger: Person) -> None:
    done = stranger.run("demo")
    assert done.code == 0, done.out + done.err
    assert "Subject: Welcome to TaskFlow, Ada" in done.out
    assert "records 200, pages 5, created 200, updated 0, unchanged 0" in done.out
    assert "created 0, updated 0, unchanged 200" in done.out
    assert "All done in" in done.out
    made = {path.suffix for path in (stranger.folder / ".taskflow/demo").glob("*/*") if path.stat().st_size}
    assert made == {".csv", ".html", ".pdf", ".xlsx"}
    assert not stranger.credentials.exists(), "the demo's user is thrown away"


def test_a_schedule_is_added_listed_paused_resumed_and_removed(ada: Person) -> None:
    added = ada.run(
        "schedules", "add", "daily", "EMAIL", "--cron", "0 6 * * *", "--payload", json.dumps(MAIL), "--json"
    )
    assert added.code == 0, added.err
    schedule_id = added.json["id"]
    assert len(added.json["next_firings"]) == 5
    line = ada.run("schedules", "ls").out.splitlines()[1]
    assert line.startswith(f"{schedule_id} 0 6 * * * UTC")
    assert line.endswith("daily")
    assert "is paused" in ada.run("schedules", "pause", schedule_id).out
    assert ada.run("schedules", "ls", "--json").json[0]["paused"] is True
    assert "fires at" in ada.run("schedules", "resume", schedule_id).out
    assert ada.run("schedules", "rm", schedule_id).code == 0
    assert ada.run("schedules", "ls", "--json").json == []
    assert ada.run("schedules", "rm", schedule_id).code == 1


def test_a_wrong_cron_expression_is_explained(ada: Person) -> None:
    done = ada.run("schedules", "add", "never", "EMAIL", "--cron", "0 25 * * *", "--payload", json.dumps(MAIL))
    assert done.code == 1
    assert "- cron: bad hour; give five fields" in done.err


def test_a_finished_task_is_cloned_and_removed(ada: Person) -> None:
    task_id = ada.submit("EMAIL", MAIL, "--delay", "3600", "--tag", "a", "--tag", "b")
    assert ada.run("rm", task_id).code == 1, "it waits"
    assert ada.run("cancel", task_id).code == 0
    copy = ada.run("clone", task_id, "--delay", "3600", "--queue", "low", "--json").json
    assert (copy["queue"], copy["tags"]) == ("low", ["a", "b"])
    assert ada.run("rm", task_id, "--json").json == {"deleted": task_id}
    assert [task["id"] for task in ada.run("ls", "--tag", "a", "--json").json] == [copy["id"]]


def test_a_key_acts_as_its_owner_within_its_scopes(ada: Person, platform: Path, tmp_path: Path) -> None:
    key = ada.run("keys", "add", "reader", "--scope", "tasks:read", "--json").json
    program = Person(platform, tmp_path / "program", "")
    assert program.run("ls", "--json", TASKFLOW_API_KEY=key["key"]).json == []
    refused = program.run("cancel", key["id"], TASKFLOW_API_KEY=key["key"])
    assert (refused.code, "insufficient_scope" in refused.err) == (1, True)
    assert key["key"] not in ada.run("keys", "ls").out
    assert ada.run("keys", "rm", key["id"]).code == 0
    assert ada.run("keys", "ls", "--json").json == []


def test_a_new_password_ends_the_other_sessions(ada: Person, platform: Path, tmp_path: Path) -> None:
    elsewhere = Person(platform, tmp_path / "elsewhere", ada.email)
    assert elsewhere.run("login", ada.email, "--password-stdin", stdin="correct horse battery\n").code == 0
    assert [one["current"] for one in ada.run("sessions", "ls", "--json").json].count(True) == 1
    changed = ada.run("password", "--password-stdin", stdin="correct horse battery\nanother horse\n")
    assert changed.code == 0, changed.err
    assert len(ada.run("sessions", "ls", "--json").json) == 1
    assert elsewhere.run("whoami").code == 1
    assert ada.run("sessions", "end", "--all").code == 0
    assert ada.run("whoami").code == 1


@pytest.mark.parametrize("role", ["OPERATOR", "ADMIN"])
def test_an_account_made_at_the_database_may_pause_a_queue_and_a_users_may_not(
    ada: Person, platform: Path, tmp_path: Path, role: str
) -> None:
    boss = Person(platform, tmp_path / "boss", f"{uuid4().hex[:8]}@example.com")
    password = "correct horse battery\n"
    made = boss.run("admin", "create", boss.email, "--role", role, "--password-stdin", stdin=password)
    assert (made.code, made.out.split()[:3]) == (0, [boss.email, "is", f"{role}."]), made.err
    assert boss.run("login", boss.email, "--password-stdin", stdin=password).code == 0
    assert boss.run("whoami", "--json").json["role"] == role
    refused = ada.run("queues", "pause", "slow")
    assert refused.code == 1
    assert "forbidden" in refused.err
    assert boss.run("queues", "pause", "slow").out == "Queue slow is paused; 0 waiting.\n"
    assert ["slow", "paused", "0", "0", "-"] in [line.split() for line in ada.run("queues", "ls").out.splitlines()]
    assert boss.run("queues", "resume", "slow", "--json").json["paused"] is False
    assert [worker["state"] for worker in boss.run("workers", "ls", "--json").json] == ["running"]
    assert boss.run("admin", "promote", ada.email, "operator").code == (0 if role == "ADMIN" else 1)
    again = boss.run("admin", "create", boss.email, "--password-stdin", stdin=password)
    assert (again.code, "has an account already" in again.err) == (1, True)


@pytest.mark.parametrize(
    ("email", "password", "environ", "words"),
    [
        ("root@example.com", "short\n", {}, "8 to 128 characters"),
        ("root", "correct horse battery\n", {}, "email address is not valid"),
        (
            "root@example.com",
            "correct horse battery\n",
            {"TASKFLOW_DATABASE_URL": "postgresql://u:secret@127.0.0.1:1/db"},
            "cannot use the database",
        ),
    ],
)
def test_an_admin_that_cannot_be_made_is_explained(
    stranger: Person, email: str, password: str, environ: dict[str, str], words: str
) -> None:
    done = stranger.run("admin", "create", email, "--password-stdin", stdin=password, **environ)
    assert (done.code, done.out) == (2, "")
    assert words in done.err
    assert "secret" not in done.err
