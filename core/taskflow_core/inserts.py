"""New rows of tasks: one statement writes many, with their events and the Idempotency-Keys they were asked under.

The statement is a transaction of its own or a part of one. A row that cannot be inserted is left out and says why; an
error spoils all of them, so callers try the halves of a batch that failed. Every id is made here, before the insert:
after a lost connection a look for the ids tells what was committed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any, LiteralString, NamedTuple
from uuid import UUID

import orjson

from taskflow_core.errors import DuplicateTask
from taskflow_core.lifecycle import TaskStatus
from taskflow_core.models.columns import Json

COLUMNS: LiteralString = """id, owner_id, type, title, queue, lane, priority, payload, tags, max_attempts, timeout_s,
    dedup_key, traceparent, schedule_id, fire_at, created_at"""
VALUES: LiteralString = f"""{COLUMNS}, COALESCE(asked_at, clock_timestamp()),
    CASE WHEN COALESCE(asked_at <= clock_timestamp(), true) THEN clock_timestamp() END"""
ROWS: LiteralString = """json_to_recordset(%s::json) AS n(id uuid, owner_id uuid, type text, title text, queue text,
    lane text, priority smallint, payload jsonb, tags text[], max_attempts integer, timeout_s integer, dedup_key text,
    traceparent text, schedule_id uuid, fire_at timestamptz, created_at timestamptz, asked_at timestamptz"""
EVENT: LiteralString = """event AS (
  INSERT INTO task_events (task_id, owner_id, kind, attempt) SELECT id, owner_id, 'task.created', 0 FROM task
)"""
# Rows that ask for nothing that another row may hold: most of them, and they cost a fifth less this way.
INSERT_PLAIN: LiteralString = f"""
WITH task AS (
  INSERT INTO tasks ({COLUMNS}, run_at, enqueued_at) SELECT {VALUES} FROM {ROWS})
  RETURNING id, owner_id, run_at, enqueued_at, updated_at
), {EVENT}
SELECT id, run_at, enqueued_at, updated_at FROM task
"""  # noqa: S608 - constants only
# A key is free when no answer is kept under it and nobody else asks under it at this moment: its lock is never waited
# for, so one hanging request does not hold up its neighbours. A key that was taken after the statement began makes it
# fail as a whole (its own NOT NULL): the next try finds the answer.
INSERT: LiteralString = f"""
WITH new AS MATERIALIZED (
  SELECT n.*, h.request_hash AS known_hash, h.response AS known_response, CASE
      WHEN n.looks_only OR h.request_hash IS NOT NULL THEN false
      WHEN n.key IS NULL THEN true
      ELSE pg_try_advisory_xact_lock(hashtextextended(n.owner_id || ' ' || n.key, 0))
    END AS is_free
  FROM {ROWS}, looks_only boolean, key text, request_hash text, answer jsonb)
  LEFT JOIN LATERAL (
    SELECT request_hash, response FROM idempotency_keys
    WHERE owner_id = n.owner_id AND key = n.key AND expires_at > clock_timestamp() LIMIT 1
  ) h ON true
), task AS (
  INSERT INTO tasks ({COLUMNS}, run_at, enqueued_at) SELECT {VALUES} FROM new WHERE is_free
  ON CONFLICT (owner_id, type, dedup_key) WHERE finished_at IS NULL AND dedup_key IS NOT NULL DO NOTHING
  RETURNING id, owner_id, run_at, enqueued_at, updated_at
), {EVENT}, kept AS (
  INSERT INTO idempotency_keys AS held (owner_id, key, request_hash, task_id, response, expires_at)
  SELECT new.owner_id, new.key, decode(new.request_hash, 'hex'), new.id, new.answer || jsonb_build_object(
      'run_at', task.run_at, 'updated_at', task.updated_at,
      'state', CASE WHEN task.enqueued_at IS NULL THEN new.answer ->> 'state' ELSE 'PENDING' END
    ), clock_timestamp() + make_interval(hours => 24)
  FROM new JOIN task USING (id) WHERE new.key IS NOT NULL
  ON CONFLICT (owner_id, key) DO UPDATE SET
    key = CASE WHEN held.expires_at <= clock_timestamp() THEN excluded.key END,
    request_hash = excluded.request_hash, task_id = excluded.task_id, response = excluded.response,
    created_at = clock_timestamp(), expires_at = excluded.expires_at
)
SELECT new.id, task.run_at, task.enqueued_at, task.updated_at, new.is_free, new.known_hash, new.known_response
FROM new LEFT JOIN task USING (id)
"""  # noqa: S608 - constants only
# The rows of an insert whose connection broke before it was answered, as the insert would have told them.
COMMITTED: LiteralString = """
SELECT id, run_at, enqueued_at, updated_at FROM tasks WHERE id = ANY(%s)
"""
HOLDERS: LiteralString = """
SELECT n.id, t.id AS holder
FROM unnest(%s::uuid[], %s::uuid[], %s::text[], %s::text[]) AS n(id, owner_id, type, dedup_key)
JOIN tasks t ON t.owner_id = n.owner_id AND t.type = n.type AND t.dedup_key = n.dedup_key AND t.finished_at IS NULL
"""

OPTIONAL = ("dedup_key", "traceparent", "schedule_id", "fire_at", "asked_at")
_optional = attrgetter(*OPTIONAL)


@dataclass(slots=True)
class TaskRow:
    """A row of tasks, as far as it is shown. `asked_at` is no column: the start that a new one was asked for."""

    id: UUID
    owner_id: UUID
    type: str
    title: str
    queue: str
    lane: str
    priority: int
    payload: Json
    tags: list[str]
    max_attempts: int
    timeout_s: int
    run_at: datetime
    created_at: datetime
    updated_at: datetime
    dedup_key: str | None = None
    schedule_id: UUID | None = None
    fire_at: datetime | None = None
    traceparent: str | None = None
    status: str = TaskStatus.PENDING
    result: Json | None = None
    error: Json | None = None
    progress: Json | None = None
    attempt: int = 0
    enqueued_at: datetime | None = None
    cancel_requested_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    row_version: int = 1
    asked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Keyed:
    """The Idempotency-Key of a request for one task, the sha256 of the request, and the answer it is to get.

    `answer` is the JSON of the task before its insert; the statement puts the database's times into it.
    """

    key: str
    request_hash: bytes
    answer: bytes


@dataclass(slots=True, eq=False)
class Asked:
    """A row that is asked for. One that `looks_only` is not inserted: it gets what is kept under its key, if any."""

    row: TaskRow
    keyed: Keyed | None = None
    looks_only: bool = False
    over_quota: bool = False


class Written(NamedTuple):
    """What became of a row: created, or left out because of its key or its dedup_key."""

    id: UUID
    run_at: datetime | None
    enqueued_at: datetime | None
    updated_at: datetime | None
    is_free: bool = True
    known_hash: bytes | None = None
    known_response: Json | None = None

    def created(self, row: TaskRow) -> bool:
        """Put the database's times into the row, or return False when it was left out."""
        if self.run_at is None or self.updated_at is None:
            return False
        row.run_at, row.enqueued_at, row.updated_at = self.run_at, self.enqueued_at, self.updated_at
        return True


def statement(asked: Sequence[Asked]) -> LiteralString:
    """Return the statement that inserts these rows, whose only parameter is `parameter(asked)`."""
    plain = all(one.keyed is None and one.row.dedup_key is None and not one.looks_only for one in asked)
    return INSERT_PLAIN if plain else INSERT


def parameter(asked: Sequence[Asked]) -> str:
    """Return the rows as JSON; those with dedup keys in the order that all processes take them (no deadlocks)."""
    in_order = sorted(asked, key=_dedup_order) if any(one.row.dedup_key for one in asked) else asked
    return orjson.dumps([_fields(one) for one in in_order]).decode()


def holders_of(rows: Sequence[TaskRow]) -> list[list[Any]]:
    """Return the parameters of HOLDERS for rows that were left out because of their dedup_key."""
    return [
        [row.id for row in rows],
        [row.owner_id for row in rows],
        [row.type for row in rows],
        [row.dedup_key for row in rows],
    ]


def duplicate(dedup_key: str | None, holder: UUID | None) -> DuplicateTask:
    """Return the error of a row whose dedup_key an unfinished task holds; by now, `holder` may have finished."""
    known = f"task {holder} holds" if holder else "another task held"
    return DuplicateTask(f"{known} the dedup_key {dedup_key!r} and has not finished", task_id=str(holder or ""))


def _dedup_order(asked: Asked) -> tuple[str, str, str]:
    return asked.row.dedup_key or "", asked.row.type, str(asked.row.owner_id)


def _fields(asked: Asked) -> dict[str, Any]:
    """Return what is there: a field that is left out is NULL to the statement, and costs nothing on the way."""
    row, keyed = asked.row, asked.keyed
    fields: dict[str, Any] = {
        "id": row.id,
        "owner_id": row.owner_id,
        "type": row.type,
        "title": row.title,
        "queue": row.queue,
        "lane": row.lane,
        "priority": row.priority,
        "payload": row.payload,
        "tags": row.tags,
        "max_attempts": row.max_attempts,
        "timeout_s": row.timeout_s,
        "created_at": row.created_at,
    }
    if any(optional := _optional(row)):
        fields |= {name: value for name, value in zip(OPTIONAL, optional, strict=True) if value is not None}
    if asked.looks_only:
        fields["looks_only"] = True
    if keyed is not None:
        fields["key"] = keyed.key
        fields["request_hash"] = keyed.request_hash.hex()
        fields["answer"] = orjson.Fragment(keyed.answer)
    return fields
