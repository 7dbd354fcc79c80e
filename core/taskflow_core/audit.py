"""What must hold in any TaskFlow database, checked read-only in one snapshot, however large it is.

Tasks are walked in slices of their ids; for each slice one statement gathers the facts of its tasks from the three
tables (`FACTS`) and counts the tasks that break each rule (`CHECKS`). Memory is bounded by the slice, and UUIDv7 keeps
the rows of a slice close together. What no slice can see (deduplication keys, totals) is asked once.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, LiteralString, NamedTuple
from uuid import UUID

from psycopg import Connection, IsolationLevel
from psycopg.rows import dict_row, tuple_row

SLICE = 20_000  # tasks
EXAMPLES = 5
STATEMENT_TIMEOUT_S = 300
FIRST, LAST = UUID(int=0), UUID(int=2**128 - 1)


class Check(NamedTuple):
    """A rule: its name, why it matters, and the SQL that finds what breaks it.

    That is a condition on a row of FACTS, or for the rules below CHECKS a query of ids.
    """

    name: str
    why: str
    broken: LiteralString


@dataclass(frozen=True, slots=True)
class Finding:
    """How many tasks break a rule, and the first few of them."""

    name: str
    why: str
    violations: int = 0
    examples: Sequence[UUID] = ()


@dataclass(frozen=True, slots=True)
class Audit:
    """What one look at a database found. The totals count whole tables, not slices."""

    taken_at: datetime
    tasks: dict[str, int]
    attempts: dict[str, int]
    events: dict[str, int]
    findings: list[Finding]

    @property
    def clean(self) -> bool:
        """Whether every rule holds."""
        return not any(finding.violations for finding in self.findings)


# `counted` are the ended attempts since the last manual retry that were not given back. A retry by hand leaves no
# mark on the attempts, so they are found by number: as many as were started after its event, newest fence first.
FACTS: LiteralString = """
t AS (
  SELECT id, owner_id, status, attempt, max_attempts, fence, run_at, enqueued_at, lease_expires_at, finished_at,
    cancel_requested_at, worker_id, row_version, error IS NOT NULL AS has_error
  FROM tasks WHERE id > %(after)s AND id <= %(upto)s
), e AS (
  SELECT x.task_id, count(*) AS events,
    count(*) FILTER (WHERE kind = 'task.created') AS created,
    count(*) FILTER (WHERE kind = 'task.started') AS started,
    count(*) FILTER (WHERE kind = 'task.completed') AS completed,
    count(*) FILTER (WHERE kind = 'task.failed') AS failed,
    count(*) FILTER (WHERE kind = 'task.canceled') AS canceled,
    count(*) FILTER (WHERE kind = 'task.retried_by_hand') AS by_hand,
    count(*) FILTER (WHERE kind = 'task.started' AND x.id > COALESCE(by_hand_id, 0)) AS started_since,
    count(*) FILTER (WHERE x.owner_id <> t.owner_id) AS foreign_events,
    (array_agg(kind ORDER BY x.id))[1] AS first_kind,
    (array_agg(kind ORDER BY x.id DESC) FILTER (WHERE kind IN ('task.created', 'task.started', 'task.retried',
      'task.timed_out', 'task.released', 'task.snoozed', 'task.lost', 'task.retried_by_hand', 'task.completed',
      'task.failed', 'task.canceled')))[1] AS last_kind
  FROM (
    SELECT task_id, id, kind, owner_id,
      max(id) FILTER (WHERE kind = 'task.retried_by_hand') OVER (PARTITION BY task_id) AS by_hand_id
    FROM task_events WHERE task_id > %(after)s AND task_id <= %(upto)s
  ) x LEFT JOIN t ON t.id = x.task_id GROUP BY x.task_id
), a AS (
  SELECT x.task_id, count(*) AS attempts,
    count(*) FILTER (WHERE outcome = 'completed') AS completed,
    count(*) FILTER (WHERE outcome = 'completed' AND back = 1) AS completed_last,
    count(*) FILTER (WHERE outcome = 'lost') AS lost,
    count(*) FILTER (WHERE outcome NOT IN ('released', 'snoozed')
      AND back <= e.started_since - (t.status = 'RUNNING')::int) AS counted
  FROM (
    SELECT task_id, outcome, row_number() OVER (PARTITION BY task_id ORDER BY fence DESC) AS back
    FROM task_attempts WHERE task_id > %(after)s AND task_id <= %(upto)s
  ) x LEFT JOIN e ON e.task_id = x.task_id LEFT JOIN t ON t.id = x.task_id GROUP BY x.task_id
), f AS (
  SELECT t.*, t.status = 'RUNNING' AS running, t.status IN ('COMPLETED', 'FAILED', 'CANCELED') AS final,
    COALESCE(e.events, 0) AS events, COALESCE(e.created, 0) AS created_events, e.first_kind, e.last_kind,
    COALESCE(e.started, 0) AS started_events, COALESCE(e.completed, 0) AS completed_events,
    COALESCE(e.failed, 0) AS failed_events, COALESCE(e.canceled, 0) AS canceled_events,
    COALESCE(e.by_hand, 0) AS by_hand, COALESCE(e.foreign_events, 0) AS foreign_events,
    COALESCE(a.attempts, 0) AS attempts, COALESCE(a.completed, 0) AS completed_attempts,
    COALESCE(a.completed_last, 0) AS completed_last, COALESCE(a.lost, 0) AS lost_attempts,
    COALESCE(a.counted, 0) AS counted,
    CASE WHEN t.status = 'RUNNING' THEN EXISTS (
      SELECT 1 FROM workers w WHERE w.id = t.worker_id AND t.id = ANY (w.held)) END AS held
  FROM t LEFT JOIN e ON e.task_id = t.id LEFT JOIN a ON a.task_id = t.id
)"""

CHECKS: tuple[Check, ...] = (
    Check(
        "a task is waiting, running or final",
        "any other status would never be picked up by anything",
        "status NOT IN ('PENDING', 'RUNNING') AND NOT final",
    ),
    Check(
        "a task runs if and only if it has a lease",
        "without a lease nobody would notice that its worker died",
        "running <> (lease_expires_at IS NOT NULL)",
    ),
    Check(
        "a task is final if and only if it has an end",
        "unfinished tasks are found by the missing end",
        "final <> (finished_at IS NOT NULL)",
    ),
    Check(
        "a due task is on its way",
        "due for over a minute and not enqueued: no scheduler works, or one cannot see the task",
        "status = 'PENDING' AND enqueued_at IS NULL AND run_at < now() - interval '1 minute'",
    ),
    Check(
        "a waiting task can be claimed",
        "asked to stop, or without attempts left, it would wait for ever",
        "status = 'PENDING' AND (cancel_requested_at IS NOT NULL OR attempt >= max_attempts)",
    ),
    Check(
        "an expired lease is ended",
        "expired for over a minute: no scheduler works, or one cannot see the task",
        "running AND lease_expires_at < now() - interval '1 minute'",
    ),
    Check(
        "a running task is named by its worker's row",
        "expired leases are looked for there; others are found minutes later",
        "running AND NOT held",
    ),
    Check(
        "a task completes once",
        "a second completed attempt means that a lost lease still had a say",
        "completed_attempts > 1",
    ),
    Check(
        "a task is COMPLETED by its last attempt, and no other has a completed one",
        "the status and the history would tell different stories",
        "(status = 'COMPLETED') <> (completed_attempts > 0) OR completed_attempts <> completed_last",
    ),
    Check(
        "attempts are within their bound",
        "more would break the promise that a poisonous task ends",
        "attempt NOT BETWEEN 0 AND max_attempts",
    ),
    Check(
        "the attempt counter is what the history says",
        "released and snoozed attempts are given back, a retry by hand starts at nought, nothing else counts otherwise",
        "attempt <> counted + running::int",
    ),
    Check(
        "every start has one end",
        "a start without an end is a lost attempt, an end without a start an invented one",
        "started_events <> attempts + running::int",
    ),
    Check(
        "the fence counts every change of hands",
        "a fence used twice would let an old worker's result pass",
        "fence <> started_events + lost_attempts + by_hand",
    ),
    Check(
        "a task's first event is its creation",
        "followers of the events would miss the task, or see it twice",
        "created_events <> 1 OR first_kind IS DISTINCT FROM 'task.created'",
    ),
    Check(
        "every final status has its event, once",
        "followers and webhooks hear of an end by its event",
        "completed_events <> (status = 'COMPLETED')::int OR canceled_events <> (status = 'CANCELED')::int"
        " OR failed_events <> by_hand + (status = 'FAILED')::int",
    ),
    Check(
        "the last event says where the task is",
        "an event that is missing or out of order would show a task where it is not",
        "CASE WHEN final THEN last_kind IS DISTINCT FROM 'task.' || lower(status)"
        " WHEN running THEN last_kind IS DISTINCT FROM 'task.started'"
        " ELSE last_kind IS NULL"
        " OR last_kind IN ('task.started', 'task.completed', 'task.failed', 'task.canceled') END",
    ),
    Check(
        "the version counts every event",
        "a change without a new version would slip past If-Match",
        "row_version < events",
    ),
    Check("events belong to the task's owner", "live updates are sent by the event's owner", "foreign_events > 0"),
    Check(
        "FAILED says why, COMPLETED has nothing to explain",
        "an error kept beside a success, or missing beside a failure, misleads",
        "(status = 'FAILED' AND NOT has_error) OR (status = 'COMPLETED' AND has_error)",
    ),
)

# Without a task of their own; retention deletes them together.
ORPHANS = Check(
    "history belongs to a task",
    "what is left of a deleted task stays for ever, and of a lost one is evidence",
    """
SELECT h.task_id AS id FROM (
  SELECT task_id FROM task_events WHERE task_id > %(after)s AND task_id <= %(upto)s
  UNION SELECT task_id FROM task_attempts WHERE task_id > %(after)s AND task_id <= %(upto)s
  UNION SELECT task_id FROM task_logs WHERE task_id > %(after)s AND task_id <= %(upto)s
) h WHERE NOT EXISTS (SELECT 1 FROM tasks t WHERE t.id = h.task_id)
""",
)
DEDUP = Check(
    "a deduplication key is held by one unfinished task",
    "a second one is the double that the key was to prevent",
    """
SELECT id FROM (
  SELECT id, row_number() OVER (PARTITION BY owner_id, type, dedup_key ORDER BY id) AS place
  FROM tasks WHERE finished_at IS NULL AND dedup_key IS NOT NULL
) held WHERE place > 1
""",
)
COUNTERS = Check(
    "the counts agree",
    "completed tasks, completed attempts and their events are counted in three tables, and slice by slice",
    "",
)

NEXT: LiteralString = "SELECT id FROM tasks WHERE id > %(after)s ORDER BY id OFFSET %(slice)s LIMIT 1"
TOTALS: dict[str, LiteralString] = {
    "tasks": "SELECT status, count(*) FROM tasks GROUP BY status ORDER BY status",
    "attempts": "SELECT outcome, count(*) FROM task_attempts GROUP BY outcome ORDER BY outcome",
    "events": "SELECT kind, count(*) FROM task_events GROUP BY kind ORDER BY kind",
}


@dataclass(slots=True)
class _Tally:
    violations: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[UUID]] = field(default_factory=dict)
    tasks: int = 0

    def add(self, name: str, count: int, examples: Sequence[UUID]) -> None:
        self.violations[name] += count
        kept = self.examples.setdefault(name, [])
        kept += examples[: EXAMPLES - len(kept)]

    def finding(self, check: Check) -> Finding:
        return Finding(check.name, check.why, self.violations[check.name], self.examples.get(check.name, []))


def audit(connection: Connection[Any]) -> Audit:
    """Check a database in one read-only snapshot, on a connection that is in no transaction.

    It holds up no writer, only the vacuum, for as long as the walk takes.

    Raises:
        psycopg.Error: PostgreSQL is away, or the database has another schema.
    """
    connection.isolation_level = IsolationLevel.REPEATABLE_READ
    connection.read_only = True
    connection.prepare_threshold = None  # a plan made once would not fit the first slice and the last
    tally = _Tally()
    with connection.transaction(), connection.cursor(row_factory=tuple_row) as cursor:
        cursor.execute("SELECT set_config('statement_timeout', %s, true), now()", [f"{STATEMENT_TIMEOUT_S}s"])
        (_, taken_at), *_ = cursor.fetchall()
        totals: dict[str, dict[str, int]] = {
            name: dict(cursor.execute(query).fetchall()) for name, query in TOTALS.items()
        }
        for after, upto in _slices(connection):
            _look_at(connection, after, upto, tally)
        tally.add(DEDUP.name, *_listed(connection, DEDUP, {}))
    tally.add(COUNTERS.name, _disagreements(totals, tally), [])
    findings = [tally.finding(check) for check in (*CHECKS, ORPHANS, DEDUP, COUNTERS)]
    return Audit(taken_at, totals["tasks"], totals["attempts"], totals["events"], findings)


def _slices(connection: Connection[Any]) -> Iterator[tuple[UUID, UUID]]:
    after = FIRST
    while True:
        row = connection.execute(NEXT, {"after": after, "slice": SLICE - 1}).fetchone()
        upto = LAST if row is None else row[0]
        yield after, upto
        if row is None:
            return
        after = upto


def _look_at(connection: Connection[Any], after: UUID, upto: UUID, tally: _Tally) -> None:
    parameters = {"after": after, "upto": upto}
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(_statement(), parameters).fetchone() or {}
    tally.tasks += row["tasks"]
    for number, check in enumerate(CHECKS):
        tally.add(check.name, row[f"count_{number}"], row[f"ids_{number}"] or [])
    tally.add(ORPHANS.name, *_listed(connection, ORPHANS, parameters))


def _statement() -> LiteralString:
    columns = [
        f"count(*) FILTER (WHERE {check.broken}) AS count_{number}, "
        f"(array_agg(id ORDER BY id) FILTER (WHERE {check.broken}))[1:{EXAMPLES}] AS ids_{number}"
        for number, check in enumerate(CHECKS)
    ]
    return f"WITH {FACTS} SELECT count(*) AS tasks, {', '.join(columns)} FROM f"  # noqa: S608 - constants only


def _listed(connection: Connection[Any], check: Check, parameters: dict[str, UUID]) -> tuple[int, list[UUID]]:
    """Return how many ids the query of a check gives, and the first few."""
    query = f"SELECT id, count(*) OVER () FROM ({check.broken}) x ORDER BY id LIMIT {EXAMPLES}"  # noqa: S608 - constants
    with connection.cursor(row_factory=tuple_row) as cursor:
        rows = cursor.execute(query, parameters).fetchall()
    return (rows[0][1] if rows else 0), [row[0] for row in rows]


def _disagreements(totals: dict[str, dict[str, int]], tally: _Tally) -> int:
    completed = totals["tasks"].get("COMPLETED", 0)
    pairs = (
        (completed, totals["attempts"].get("completed", 0)),
        (completed, totals["events"].get("task.completed", 0)),
        (sum(totals["tasks"].values()), tally.tasks),
        (sum(totals["tasks"].values()), totals["events"].get("task.created", 0)),
    )
    return sum(one != other for one, other in pairs)
