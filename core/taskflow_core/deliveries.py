"""How events become deliveries, and deliveries attempts. None commits; any number of schedulers may run it.

Events are followed by their id, and an id is given out before its transaction commits. So the last id is read first,
then which transactions hold the table's lock for writing: who wrote an id up to that one and has not ended is among
them. When those have ended, every event up to that id is visible or will never be. What other transactions do, however
long, holds up nothing.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from taskflow_core.database import dumps
from taskflow_core.sealing import Sealer
from taskflow_core.webhooks import GIVE_UP, give_up

CURSOR = "webhooks_cursor"  # made by the migration, at the last event of then
EVENTS_A_BATCH = 2000
MAX_WAITING = 100_000  # deliveries of one endpoint
LEASE = timedelta(seconds=60)  # longer than an attempt may take
BACKOFF_BASE_S = 5.0
BACKOFF_CAP_S = 3 * 3600.0
RESEALED = 500


class Horizon(NamedTuple):
    """The last id that was given out, and the transactions that may still write one up to it."""

    upto: int
    writers: frozenset[str]


class FannedOut(NamedTuple):
    """How many deliveries were made, which endpoints were disabled for holding too many, and whether there is more."""

    made: int
    overflowed: Sequence[UUID] = ()
    more: bool = False


class Candidate(NamedTuple):
    """A delivery that is due."""

    id: UUID
    endpoint_id: UUID
    host: str


@dataclass(frozen=True, slots=True)
class Sending:
    """A delivery that this scheduler may send until its lease ends; `tried_s` is for how long it has been tried."""

    id: UUID
    endpoint_id: UUID
    url: str
    host: str
    secret: bytes
    previous_secret: bytes | None
    body: str
    attempt: int
    tried_s: float


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many deliveries may be under way at once: in all, to one endpoint, to one host."""

    total: int
    endpoint: int = 4
    host: int = 8


LAST_ID = text("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM task_events_id_seq")
WRITERS = text("""
SELECT virtualtransaction FROM pg_locks WHERE locktype = 'relation' AND relation = 'task_events'::regclass
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND mode = 'RowExclusiveLock' AND granted AND pid IS DISTINCT FROM pg_backend_pid()
""")
LOCK_CURSOR = text("SELECT value FROM platform_state WHERE key = :key FOR UPDATE SKIP LOCKED")
MOVE_CURSOR = text("UPDATE platform_state SET value = :value, updated_at = clock_timestamp() WHERE key = :key")
ANYBODY = text("SELECT EXISTS (SELECT FROM webhook_endpoints WHERE disabled_at IS NULL)")
# The id is a UUIDv7: the milliseconds and the version's digit over the beginning of a random one.
FAN_OUT = text("""
INSERT INTO webhook_deliveries (id, endpoint_id, event_id, task_id, kind, body, next_attempt_at, gives_up_at)
SELECT overlay(gen_random_uuid()::text PLACING substr(ms, 1, 8) || '-' || substr(ms, 9) || '-7' FROM 1 FOR 15)::uuid,
  h.id, e.id, t.id, e.kind,
  jsonb_build_object('type', e.kind, 'timestamp', e.created_at, 'data', jsonb_build_object(
    'task', jsonb_build_object('id', t.id, 'type', t.type, 'title', t.title, 'queue', t.queue, 'tags', t.tags,
      'dedup_key', t.dedup_key, 'schedule_id', t.schedule_id, 'created_at', t.created_at),
    'attempt', e.attempt,
    'error', CASE WHEN e.data ->> 'code' IS NOT NULL
      THEN jsonb_build_object('code', e.data -> 'code', 'message', e.data -> 'message') END)),
  clock_timestamp(), clock_timestamp() + CAST(:give_up AS interval)
FROM task_events e
JOIN webhook_endpoints h ON h.owner_id = e.owner_id AND h.disabled_at IS NULL AND e.created_at >= h.enabled_at
  AND (e.kind = ANY(h.kinds) OR 'task.*' = ANY(h.kinds))
JOIN users u ON u.id = h.owner_id AND u.disabled_at IS NULL
JOIN tasks t ON t.id = e.task_id AND (h.types = '{}' OR t.type = ANY(h.types))
  AND (h.queues = '{}' OR t.queue = ANY(h.queues))
CROSS JOIN LATERAL (SELECT lpad(to_hex((EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::bigint), 12, '0') AS ms) clock
WHERE e.id > :after AND e.id <= :upto ORDER BY e.id
ON CONFLICT DO NOTHING RETURNING endpoint_id
""")
WAITING = text("""
SELECT count(*) FROM (SELECT FROM webhook_deliveries WHERE endpoint_id = :id AND next_attempt_at IS NOT NULL
  LIMIT :most) waiting
""")

# A step for each endpoint that something waits for, then its oldest due ones: a long queue hides no short one.
DUE = text("""
WITH RECURSIVE waiting(id) AS (
  (SELECT endpoint_id FROM webhook_deliveries WHERE next_attempt_at IS NOT NULL ORDER BY endpoint_id LIMIT 1)
  UNION ALL
  SELECT (SELECT endpoint_id FROM webhook_deliveries WHERE next_attempt_at IS NOT NULL AND endpoint_id > w.id
    ORDER BY endpoint_id LIMIT 1) FROM waiting w WHERE w.id IS NOT NULL
)
SELECT d.id, h.id AS endpoint_id, host.name AS host FROM waiting w
JOIN webhook_endpoints h ON h.id = w.id AND h.disabled_at IS NULL
CROSS JOIN LATERAL (SELECT lower(substring(h.url FROM '^[a-z]+://([^/?]+)')) AS name) host
LEFT JOIN unnest(CAST(:busy AS uuid[]), CAST(:counts AS int[])) AS b(id, count) ON b.id = h.id
CROSS JOIN LATERAL (
  SELECT id, next_attempt_at FROM webhook_deliveries
  WHERE endpoint_id = h.id AND next_attempt_at <= statement_timestamp()
  ORDER BY next_attempt_at LIMIT GREATEST(:room - COALESCE(b.count, 0), 0) FOR UPDATE SKIP LOCKED
) d
WHERE host.name <> ALL(CAST(:full AS text[])) ORDER BY random() LIMIT :most
""")
TAKE = text("""
UPDATE webhook_deliveries d SET attempt = d.attempt + 1, next_attempt_at = clock_timestamp() + CAST(:lease AS interval)
FROM webhook_endpoints h, unnest(CAST(:ids AS uuid[]), CAST(:hosts AS text[])) AS c(id, host)
WHERE d.id = c.id AND h.id = d.endpoint_id
RETURNING d.id, h.id AS endpoint_id, h.url, c.host, h.secret,
  CASE WHEN h.previous_secret_expires_at > clock_timestamp() THEN h.previous_secret END AS previous_secret,
  d.body::text AS body, d.attempt,
  GREATEST(0, EXTRACT(EPOCH FROM clock_timestamp() - d.gives_up_at + CAST(:give_up AS interval)))::float8 AS tried_s
""")
DELIVERED = text("""
UPDATE webhook_deliveries SET delivered_at = clock_timestamp(), next_attempt_at = NULL,
  response = CAST(:response AS jsonb) WHERE id = :id AND attempt = :attempt
""")
ENDPOINT_WORKS = text(
    "UPDATE webhook_endpoints SET first_failure_at = NULL WHERE id = :id AND first_failure_at IS NOT NULL"
)
FAILED = text("""
UPDATE webhook_deliveries SET response = CAST(:response AS jsonb), next_attempt_at = CASE
  WHEN clock_timestamp() + CAST(:wait AS interval) <= gives_up_at THEN clock_timestamp() + CAST(:wait AS interval) END
WHERE id = :id AND attempt = :attempt AND next_attempt_at IS NOT NULL
""")
ENDPOINT_FAILS = text("""
UPDATE webhook_endpoints SET first_failure_at = COALESCE(first_failure_at, clock_timestamp()) WHERE id = :id
RETURNING clock_timestamp() - first_failure_at > CAST(:bound AS interval)
""")
SEALED_BEFORE = text("""
SELECT id, secret, previous_secret FROM webhook_endpoints
WHERE id > :after AND (substr(secret, 1, 8) <> :key_id OR substr(previous_secret, 1, 8) <> :key_id)
ORDER BY id LIMIT :most FOR UPDATE
""")
SEALED_ANEW = text("UPDATE webhook_endpoints SET secret = :secret, previous_secret = :previous WHERE id = :id")


def backoff_s(tried_s: float, *, spread: float) -> float:
    """Return the wait in seconds before the next attempt of a delivery that has been tried for `tried_s`.

    As long as it has been tried (so waits double), from 5 s to 3 h, scaled by `spread` in [0, 1] to between half and
    all of it.
    """
    return max(BACKOFF_BASE_S, min(BACKOFF_CAP_S, tried_s)) * (0.5 + 0.5 * spread)


async def horizon(session: AsyncSession) -> Horizon:
    """Return up to which event can be gone, once its writers have ended."""
    upto = (await session.execute(LAST_ID)).scalar_one()  # first: who gets a later id does not matter
    return Horizon(upto, await _writers(session))


async def has_settled(session: AsyncSession, seen: Horizon) -> bool:
    """Whether every event up to the horizon is visible, or never will be."""
    return not seen.writers or not (seen.writers & await _writers(session))


async def fan_out(session: AsyncSession, *, upto: int) -> FannedOut:
    """Make the deliveries of the next batch of events up to that id, once each; nothing while another does it."""
    value = (await session.execute(LOCK_CURSOR, {"key": CURSOR})).scalar_one_or_none()
    if value is None or int(value) >= upto:
        return FannedOut(0)
    after = int(value)
    made: list[UUID] = []
    end = upto
    if (await session.execute(ANYBODY)).scalar_one():
        end = min(upto, after + EVENTS_A_BATCH)
        rows = await session.execute(FAN_OUT, {"after": after, "upto": end, "give_up": GIVE_UP})
        made = list(rows.scalars())
    await session.execute(MOVE_CURSOR, {"key": CURSOR, "value": str(end)})
    overflowed = [identifier for identifier in set(made) if await _overflows(session, identifier)]
    return FannedOut(len(made), overflowed, end < upto)


async def take(session: AsyncSession, *, bounds: Bounds, busy: Sequence[Sending]) -> list[Sending]:
    """Take deliveries that are due for one attempt each, beside those that are under way."""
    endpoints = Counter(one.endpoint_id for one in busy)
    hosts = Counter(one.host for one in busy)
    room = bounds.total - len(busy)
    parameters = {
        "busy": list(endpoints),
        "counts": list(endpoints.values()),
        "full": [host for host, count in hosts.items() if count >= bounds.host],
        "room": bounds.endpoint,
        "most": room * 2,
    }
    due = [Candidate(*row) for row in await session.execute(DUE, parameters)]
    chosen = within_bounds(due, hosts=hosts, host=bounds.host, room=room)
    if not chosen:
        return []
    taken = {"ids": [one.id for one in chosen], "hosts": [one.host for one in chosen]}
    rows = await session.execute(TAKE, {**taken, "lease": LEASE, "give_up": GIVE_UP})
    return [Sending(**row) for row in rows.mappings()]


def within_bounds(due: Iterable[Candidate], *, hosts: Mapping[str, int], host: int, room: int) -> list[Candidate]:
    """Return at most `room` candidates, so that no host has more than `host` under way."""
    counts = Counter(hosts)
    chosen: list[Candidate] = []
    for one in due:
        if len(chosen) < room and counts[one.host] < host:
            counts[one.host] += 1
            chosen.append(one)
    return chosen


async def succeeded(session: AsyncSession, sent: Sending, *, response: dict[str, Any]) -> None:
    """Keep that the delivery arrived, unless another scheduler took it over meanwhile."""
    await session.execute(DELIVERED, {"id": sent.id, "attempt": sent.attempt, "response": dumps(response)})
    await session.execute(ENDPOINT_WORKS, {"id": sent.endpoint_id})


async def failed(
    session: AsyncSession, sent: Sending, *, response: dict[str, Any], wait_s: float, disable_after: timedelta
) -> str | None:
    """Plan the next attempt within the day, else give up; return why the endpoint was disabled, if it was."""
    await session.execute(
        FAILED,
        {
            "id": sent.id,
            "attempt": sent.attempt,
            "response": dumps(response),
            "wait": timedelta(seconds=wait_s),
        },
    )
    parameters = {"id": sent.endpoint_id, "bound": disable_after}
    too_long = (await session.execute(ENDPOINT_FAILS, parameters)).scalar_one_or_none()
    if not too_long:
        return None
    reason = f"no delivery has arrived for {disable_after.total_seconds() / 86_400:g} days"
    return reason if await give_up(session, sent.endpoint_id, reason=reason) else None


async def reseal(session: AsyncSession, sealer: Sealer, *, after: UUID) -> list[UUID]:
    """Encrypt secrets anew that an older key holds, a batch of those that follow `after`; return their ids.

    Raises:
        CannotUnseal: one is held by a key that is not set here.
    """
    parameters = {"key_id": sealer.key_id, "most": RESEALED, "after": after}
    rows = (await session.execute(SEALED_BEFORE, parameters)).all()
    for row in rows:
        secret, previous = (
            None if value is None else sealer.seal(sealer.unseal(value, row=row.id), row=row.id)
            for value in (row.secret, row.previous_secret)
        )
        await session.execute(SEALED_ANEW, {"id": row.id, "secret": secret, "previous": previous})
    return [row.id for row in rows]


async def _writers(session: AsyncSession) -> frozenset[str]:
    return frozenset((await session.execute(WRITERS)).scalars())


async def _overflows(session: AsyncSession, endpoint_id: UUID) -> bool:
    """Disable an endpoint that more waits for than is kept."""
    waiting = (await session.execute(WAITING, {"id": endpoint_id, "most": MAX_WAITING + 1})).scalar_one()
    return waiting > MAX_WAITING and await give_up(
        session, endpoint_id, reason=f"more than {MAX_WAITING} deliveries were waiting"
    )
