"""How much of a process's pool of connections is in use, in Prometheus' terms."""

from prometheus_client import CollectorRegistry, Gauge
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import QueuePool


class PoolMetrics:
    """How much of the pool of connections to PostgreSQL is in use; made once for a registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._used = Gauge(
            "taskflow_database_pool_connections_in_use",
            "Connections of the pool that are in use.",
            registry=registry,
        )
        self._most = Gauge(
            "taskflow_database_pool_connections_max",
            "Connections that the pool may open.",
            registry=registry,
        )

    def watch(self, engine: AsyncEngine) -> None:
        """Tell of this engine's pool from now on."""
        pool = engine.pool
        assert isinstance(pool, QueuePool)  # noqa: S101 - what create_engine makes
        self._used.set_function(pool.checkedout)
        self._most.set(pool.size())
