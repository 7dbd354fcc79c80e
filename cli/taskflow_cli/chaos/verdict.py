"""What became of the promises: every accepted task, every effect, every mail, held against the database."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, LiteralString, NamedTuple
from uuid import UUID

import psycopg
from psycopg.rows import class_row

from taskflow_cli.chaos.load import VARIANTS, Ledger
from taskflow_cli.chaos.mails import Mails
from taskflow_cli.chaos.source import PAGES, records_of
from taskflow_core.lifecycle import FINAL, TaskStatus

# What the faults themselves may make of a task that has no attempts left: its worker was killed or frozen, or its
# handler or its completion met an outage of PostgreSQL.
BY_FAULT = frozenset({"lease_lost", "commit_failed"})
OUTAGES = frozenset({"OperationalError", "InterfaceError", "DBAPIError", "TimeoutError", "ConnectionResetError"})

TASKS: LiteralString = """
SELECT t.id, t.title, t.type, t.status, t.error ->> 'code' AS code, t.error ->> 'type' AS error_type,
  (t.result ->> 'created')::int AS created,
  (t.result ->> 'updated')::int + (t.result ->> 'unchanged')::int AS found_there, COALESCE(s.records, 0) AS records,
  jsonb_array_length(t.result -> 'files') AS files_named, COALESCE(f.files, 0) AS files,
  COALESCE(a.outcomes, '{}') AS outcomes
FROM tasks t
LEFT JOIN (SELECT task_id, count(*) AS records FROM synced_records GROUP BY task_id) s ON s.task_id = t.id
LEFT JOIN (SELECT task_id, count(DISTINCT name) AS files FROM task_files GROUP BY task_id) f ON f.task_id = t.id
LEFT JOIN (
  SELECT task_id, array_agg(outcome ORDER BY fence) AS outcomes FROM task_attempts GROUP BY task_id
) a ON a.task_id = t.id
WHERE t.created_at >= %(since)s
"""

# The longest time in which no attempt ended, from the first end to the last.
STALL: LiteralString = """
SELECT COALESCE(EXTRACT(EPOCH FROM max(gap)), 0)::float8 FROM (
  SELECT finished_at - lag(finished_at) OVER (ORDER BY finished_at) AS gap FROM task_attempts
  WHERE finished_at >= %(since)s
) g
"""


SIZES = frozenset(records_of(kind) for kind in PAGES)


class Row(NamedTuple):
    """A task as it ended, with what it left behind."""

    id: UUID
    title: str  # of its own for each request
    type: str
    status: str
    code: str | None
    error_type: str | None
    created: int | None
    found_there: int | None
    records: int
    files_named: int | None
    files: int
    outcomes: list[str]


@dataclass(slots=True)
class Verdict:
    """What was found. `broken` holds a sentence for each promise that was not kept."""

    accepted: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    unfinished: list[UUID] = field(default_factory=list)
    lost: list[UUID] = field(default_factory=list)
    doubled: list[UUID] = field(default_factory=list)
    stored_unanswered: int = 0
    mails: int = 0
    mails_twice: Counter[str] = field(default_factory=Counter)  # by the ends of the task's attempts
    stall_s: float = 0.0
    broken: list[str] = field(default_factory=list)


def judge(connection: psycopg.Connection[Any], ledger: Ledger, mails: Mails, *, since: datetime) -> Verdict:
    """Hold what was promised since that moment against what the database and the mail catcher have."""
    verdict = Verdict(accepted=len(ledger.accepted), mails=mails.total)
    missing = set(ledger.accepted)
    titles: Counter[str] = Counter()
    with connection.cursor(row_factory=class_row(Row)) as cursor:
        for row in cursor.execute(TASKS, {"since": since}):
            missing.discard(row.id)
            titles[row.title] += 1
            verdict.stored_unanswered += row.id not in ledger.accepted
            judge_task(row, ledger, verdict, caught=mails.count(row.id))
    for task_id in missing:
        verdict.lost.append(task_id)
        verdict.broken.append(f"task {task_id} was accepted and is not there")
    verdict.broken += [f"one request made {count} tasks: {title}" for title, count in titles.items() if count > 1]
    if verdict.stored_unanswered > ledger.unanswered:
        excess = verdict.stored_unanswered - ledger.unanswered
        verdict.broken.append(f"{excess} more tasks are stored than were asked for")
    ((stall_s,),) = connection.execute(STALL, {"since": since}).fetchall()
    verdict.stall_s = stall_s
    return verdict


def judge_task(row: Row, ledger: Ledger, verdict: Verdict, *, caught: int) -> None:
    """Note how a task ended and each promise about it that was not kept; `caught` is how many mails it sent."""
    verdict.statuses[row.status] += 1
    if row.status not in FINAL:
        verdict.unfinished.append(row.id)
    if row.status == TaskStatus.FAILED:
        why = f"{row.code}: {row.error_type}" if row.code == "exception" else str(row.code)
        verdict.reasons[why] += 1
        _judge_failure(row, why, ledger, verdict)
    _judge_effects(row, caught, verdict)


def _judge_failure(row: Row, why: str, ledger: Ledger, verdict: Verdict) -> None:
    variant = VARIANTS.get(ledger.accepted.get(row.id, ""))
    by_itself = row.code in variant.failures if variant else row.type == "SYNC"
    by_fault = row.code in BY_FAULT or (row.code == "exception" and row.error_type in OUTAGES)
    if not by_itself and not by_fault:
        verdict.broken.append(f"{row.type} {row.id} failed for a reason that no fault explains: {why}")


def _judge_effects(row: Row, caught: int, verdict: Verdict) -> None:
    completed = row.status == TaskStatus.COMPLETED
    match row.type:
        case "SYNC":
            if row.found_there:
                verdict.doubled.append(row.id)
                verdict.broken.append(
                    f"SYNC {row.id} found {row.found_there} of its records there: it took place twice"
                )
            if row.records != (row.created or 0) or (completed and row.created not in SIZES):
                verdict.broken.append(
                    f"SYNC {row.id} ({row.status}) says {row.created} records, {row.records} are there"
                )
        case "REPORT":
            if row.files != (row.files_named or 0) or (completed and not row.files):
                verdict.broken.append(f"REPORT {row.id} ({row.status}) names {row.files_named} files, not {row.files}")
        case "EMAIL":
            _judge_mail(row, caught, verdict)


def _judge_mail(row: Row, caught: int, verdict: Verdict) -> None:
    if row.status == TaskStatus.COMPLETED and caught == 0:
        verdict.broken.append(f"EMAIL {row.id} is COMPLETED and no mail was caught")
    if caught > 1:
        verdict.mails_twice[", ".join(row.outcomes)] += 1
        if caught > len(row.outcomes):  # a worker that dies between the server's answer and its own note sends again
            verdict.doubled.append(row.id)
            verdict.broken.append(f"EMAIL {row.id} was caught {caught} times in {len(row.outcomes)} attempts")
