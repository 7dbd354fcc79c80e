"""What a chaos run decides without any process: the plan, the count of mails, and what is a broken promise."""

import hashlib
from collections import Counter
from itertools import islice
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from taskflow_cli.chaos.load import Ledger
from taskflow_cli.chaos.mails import Mails
from taskflow_cli.chaos.plan import DECK, plan
from taskflow_cli.chaos.verdict import Row, Verdict, judge_task


def test_the_same_seed_gives_the_same_faults_and_another_one_others() -> None:
    first = list(islice(plan(7), 100))
    assert list(islice(plan(7), 100)) == first
    assert list(islice(plan(8), 100)) != first


def test_every_round_brings_each_kind_once() -> None:
    faults = list(islice(plan(7), 5 * len(DECK)))
    for start in range(0, len(faults), len(DECK)):
        found = Counter((fault.kind, fault.target.partition("-")[0]) for fault in faults[start : start + len(DECK)])
        assert found == Counter((kind, targets[0].partition("-")[0]) for kind, targets, _ in DECK)


def test_a_fault_is_said_in_words() -> None:
    said = {str(fault) for fault in islice(plan(7), 200)}
    assert {"valkey is emptied", "postgres is crashed", "worker-1 is told to stop"} <= said
    assert any(words.startswith("api is frozen for ") for words in said)
    assert any(words.endswith("% of the connections to postgres are cut off") for words in said)


def caught(folder: Path, task_id: UUID, number: int) -> Path:
    digest = hashlib.sha256(f"<{task_id}@taskflow>".encode()).hexdigest()[:12]
    path = folder / f"20261124T12000{number}.000000Z-{digest}.eml"
    path.touch()
    return path


def test_mails_are_counted_by_task_even_when_the_catcher_drops_them(tmp_path: Path) -> None:
    task_id, other = uuid4(), uuid4()
    caught(tmp_path, task_id, 0)  # of an earlier run
    mails = Mails(tmp_path)
    dropped = caught(tmp_path, task_id, 1)
    mails.look()
    dropped.unlink()
    caught(tmp_path, task_id, 2)
    caught(tmp_path, other, 3)
    mails.look()
    mails.look()
    assert (mails.count(task_id), mails.count(other), mails.count(uuid4()), mails.total) == (2, 1, 0, 3)


def row(type_: str, status: str, **facts: object) -> Row:
    usual: dict[str, object] = {
        "id": uuid4(),
        "title": "",
        "code": None,
        "error_type": None,
        "created": None,
        "found_there": None,
        "records": 0,
        "files_named": None,
        "files": 0,
        "outcomes": ["completed"],
    }
    return Row(type=type_, status=status, **{**usual, **facts})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "variant", "mails", "words"),
    [
        pytest.param(row("EMAIL", "COMPLETED"), "mail", 1, "", id="a mail that was sent once"),
        pytest.param(row("EMAIL", "COMPLETED"), "mail", 0, "no mail was caught", id="a mail that never came"),
        pytest.param(
            row("EMAIL", "COMPLETED", outcomes=["lost", "completed"]),
            "mail",
            2,
            "",
            id="a mail that a second attempt repeated",
        ),
        pytest.param(row("EMAIL", "COMPLETED"), "mail", 2, "caught 2 times", id="a mail that one attempt sent twice"),
        pytest.param(row("EMAIL", "CANCELED", outcomes=[]), "mail", 0, "", id="a mail that was canceled"),
        pytest.param(
            row("SYNC", "COMPLETED", created=8, found_there=0, records=8),
            "quick",
            0,
            "",
            id="a sync that took place once",
        ),
        pytest.param(
            row("SYNC", "COMPLETED", created=0, found_there=8, records=8),
            "quick",
            0,
            "took place twice",
            id="a sync twice",
        ),
        pytest.param(row("SYNC", "FAILED", code="retry", records=8), "quick", 0, "8 are there", id="half a sync"),
        pytest.param(
            row("SYNC", "COMPLETED", created=7, found_there=0, records=7),
            "quick",
            0,
            "says 7",
            id="a sync that lacks some",
        ),
        pytest.param(row("SYNC", "FAILED", code="source_refused"), "refused", 0, "", id="a refusal that was asked for"),
        pytest.param(
            row("SYNC", "FAILED", code="source_refused"), "quick", 0, "no fault", id="a refusal out of the blue"
        ),
        pytest.param(row("EMAIL", "FAILED", code="lease_lost"), "mail", 0, "", id="a failure by a killed worker"),
        pytest.param(
            row("EMAIL", "FAILED", code="exception", error_type="OperationalError"), "mail", 0, "", id="by an outage"
        ),
        pytest.param(
            row("EMAIL", "FAILED", code="exception", error_type="KeyError"), "mail", 0, "KeyError", id="by a mistake"
        ),
        pytest.param(row("REPORT", "COMPLETED", files=4, files_named=4), "report", 0, "", id="a report"),
        pytest.param(row("REPORT", "COMPLETED"), "report", 0, "names None files", id="a report without files"),
        pytest.param(
            row("REPORT", "FAILED", code="lease_lost", files=4), "report", 0, "not 4", id="files of no report"
        ),
    ],
)
def test_a_promise_that_was_not_kept_is_told_from_one_that_was(
    found: Row, variant: str, mails: int, words: str
) -> None:
    verdict = Verdict()
    judge_task(found, Ledger(accepted={found.id: variant}), verdict, caught=mails)
    assert words in "".join(verdict.broken)
    assert bool(verdict.broken) == bool(words)
