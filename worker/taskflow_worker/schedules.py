"""The scheduler's job that fires schedules."""

from sqlalchemy.ext.asyncio import AsyncEngine

from taskflow_core import firing
from taskflow_core.database import create_sessions
from taskflow_core.firing import Firing, Outcome
from taskflow_core.handlers import Registry
from taskflow_core.logs import get_logger
from taskflow_core.queue import DeliveryQueue
from taskflow_worker.metrics import SchedulerMetrics

BATCH = 100

log = get_logger(__name__)


class Schedules:
    """Fires what is due, one transaction each."""

    def __init__(
        self,
        engine: AsyncEngine,
        registry: Registry,
        queue: DeliveryQueue,
        *,
        max_pending: int,
        metrics: SchedulerMetrics,
    ) -> None:
        self._sessions = create_sessions(engine)
        self._registry = registry
        self._queue = queue
        self._max_pending = max_pending
        self._metrics = metrics

    async def fire_due(self) -> bool:
        """Fire up to BATCH schedules; returns whether more may be due."""
        for _ in range(BATCH):
            async with self._sessions() as session:
                fired = await firing.fire_next(session, self._registry, max_pending=self._max_pending)
                await session.commit()
            if fired is None:
                return False
            _log(fired)
            self._metrics.fired(fired.outcome)
            if fired.task is not None:
                await self._queue.deliver([fired.task])
        return True


def _log(fired: Firing) -> None:
    fields = {"schedule_id": str(fired.schedule_id), "fire_at": fired.fire_at.isoformat()}
    match fired.outcome:
        case Outcome.FIRED:
            log.info("schedule.fired", task_id=str(fired.task and fired.task.id), **fields)
        case Outcome.SKIPPED:
            log.info("schedule.skipped", reason=fired.reason, **fields)
        case Outcome.BROKEN:
            log.warning("schedule.paused", reason=fired.reason, **fields)
