"""The scheduler's job that deletes what is past its time, a batch at each call."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection

from taskflow_core import retention
from taskflow_core.clock import utc_now
from taskflow_core.logs import get_logger
from taskflow_core.retention import BATCH, Keep
from taskflow_core.settings import SchedulerSettings
from taskflow_worker.metrics import SchedulerMetrics

START = UUID(int=0)

log = get_logger(__name__)


class Retention:
    """Walks through the old tasks, from the oldest on; a pass ends with what has no task: keys, tokens, deliveries."""

    def __init__(self, settings: SchedulerSettings, metrics: SchedulerMetrics) -> None:
        self._metrics = metrics
        self._keep = Keep(
            completed=timedelta(days=settings.retain_completed_days),
            failed=timedelta(days=settings.retain_failed_days),
            canceled=timedelta(days=settings.retain_canceled_days),
        )
        self._keep_events = timedelta(days=settings.retain_security_events_days)
        self._keep_deliveries = timedelta(days=settings.retain_deliveries_days)
        self._archive = settings.archive_dir
        self._after = START
        self._deleted = 0

    async def work(self, connection: AsyncConnection[Any]) -> bool:
        """Delete one batch; returns whether the pass goes on."""
        now = utc_now()
        ids = await retention.next_slice(connection, after=self._after, before=now - self._keep.least)
        if not ids:
            return await self._end_pass(connection)
        try:
            deleted = await retention.delete_past(
                connection, ids, keep=self._keep, archive=self._archive, day=f"{now:%Y-%m-%d}"
            )
        except OSError as error:
            log.error("archive.failed", folder=str(self._archive), reason=str(error))
            self._after = START
            return False
        self._metrics.deleted("tasks", deleted)
        self._deleted += deleted
        self._after = ids[-1]
        return True

    async def _end_pass(self, connection: AsyncConnection[Any]) -> bool:
        counts = {
            "idempotency_keys": await retention.delete_expired_keys(connection),
            "refresh_tokens": await retention.delete_ended_tokens(connection),
            "security_events": await retention.delete_old_security_events(connection, kept=self._keep_events),
            "api_keys": await retention.delete_ended_api_keys(connection, kept=self._keep_events),
            "webhook_deliveries": await retention.delete_old_deliveries(
                connection, before=utc_now() - self._keep_deliveries
            ),
        }
        for what, rows in counts.items():
            self._metrics.deleted(what, rows)
        if self._deleted or any(counts.values()):
            log.info("retention.deleted", tasks=self._deleted, **counts)
        self._deleted = 0
        more = BATCH in counts.values()
        if not more:
            self._after = START
        return more
