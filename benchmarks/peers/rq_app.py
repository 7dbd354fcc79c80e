"""Stock RQ workers doing what TaskFlow's engine does in SQL, a statement at a time: claim, complete, attempt, event."""

import os
from uuid import UUID

import psycopg
from redis import Redis
from rq import Queue

CLAIM = """
UPDATE tasks SET status = 'RUNNING', attempt = attempt + 1, fence = fence + 1, worker_id = 'rq',
  lease_expires_at = clock_timestamp() + interval '30 s', claimed_at = clock_timestamp()
WHERE id = %s AND status = 'PENDING' AND run_at <= clock_timestamp() RETURNING fence, owner_id, claimed_at
"""
COMPLETE = """
WITH ended AS (
  UPDATE tasks SET status = 'COMPLETED', finished_at = clock_timestamp(), lease_expires_at = NULL
  WHERE id = %(id)s AND fence = %(fence)s AND worker_id = 'rq' AND status = 'RUNNING' RETURNING id, owner_id, claimed_at
), attempt AS (
  INSERT INTO task_attempts (task_id, fence, attempt, worker_id, outcome, started_at)
  SELECT id, %(fence)s, 1, 'rq', 'completed', claimed_at FROM ended
)
INSERT INTO task_events (task_id, owner_id, kind, attempt) SELECT id, owner_id, 'task.completed', 1 FROM ended
"""
_connection: psycopg.Connection | None = None


def work(task_id: str) -> None:
    """Claim, do nothing, complete."""
    global _connection
    if _connection is None:
        _connection = psycopg.connect(os.environ["BENCH_DATABASE_URL"], autocommit=True)
    row = _connection.execute(CLAIM, [UUID(task_id)]).fetchone()
    if row is not None:
        _connection.execute(COMPLETE, {"id": UUID(task_id), "fence": row[0]})


def enqueue(count: int) -> None:
    """Enqueue a job for each of `count` waiting rows."""
    queue = Queue("bench", connection=Redis.from_url(os.environ["BENCH_REDIS_URL"]), serializer="json")
    with psycopg.connect(os.environ["BENCH_DATABASE_URL"]) as connection:
        rows = connection.execute("SELECT id FROM tasks WHERE status = 'PENDING' LIMIT %s", [count]).fetchall()
    data = [Queue.prepare_data("rq_app.work", (str(row[0]),), result_ttl=0, description="noop") for row in rows]
    for start in range(0, count, 500):
        queue.enqueue_many(data[start : start + 500])
