"""What the scheduler's sweeps cost where much waits and little is to be done."""

from datetime import timedelta

import psycopg
import pytest

from taskflow_core import recovery
from taskflow_core.database import plain_url
from taskflow_core.settings import Settings

WAITING = 5000
FILL = """
INSERT INTO tasks (id, owner_id, type, lane, payload, created_at, run_at, enqueued_at)
SELECT gen_random_uuid(), gen_random_uuid(), 'ECHO', 'default', '{}', now(), now() + %s * interval '1 hour',
  CASE WHEN %s = 0 THEN clock_timestamp() END FROM generate_series(1, %s)
"""


def filtered_rows(plan: str) -> int:
    """Return how many rows a plan that ran read and threw away."""
    return sum(int(line.split(":")[1]) for line in plan.splitlines() if "Removed by Filter" in line)


@pytest.mark.parametrize(
    ("statement", "ahead_h", "given"),
    [
        pytest.param(recovery.DUE, 1, {}, id="tasks of a later hour"),
        pytest.param(recovery.LOST, 0, {"lane": "default", "grace": timedelta()}, id="tasks behind the list's head"),
    ],
)
def test_a_sweep_reads_nothing_of_what_only_waits(
    statement: str, ahead_h: int, given: dict[str, object], settings: Settings
) -> None:
    with psycopg.connect(plain_url(settings.database_url), autocommit=True) as connection:
        before = connection.execute("SELECT clock_timestamp()").fetchone()
        connection.execute(FILL, [ahead_h, ahead_h, WAITING])
        connection.execute("VACUUM ANALYZE tasks")
        explain = "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) " + statement
        parameters = {"batch": recovery.BATCH, "watermark": before and before[0], **given}
        plan = "\n".join(row[0] for row in connection.execute(explain.encode(), parameters).fetchall())
    assert "Index" in plan
    assert filtered_rows(plan) == 0, plan
