"""The connection pool to PostgreSQL, and what its errors mean."""

from typing import Any, cast

import orjson
import psycopg
from psycopg import AsyncConnection
from psycopg.errors import LockNotAvailable, QueryCanceled
from pydantic import SecretStr
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from taskflow_core.settings import Settings

Sessions = async_sessionmaker[AsyncSession]


def dumps(value: Any) -> str:
    """Return compact JSON; dates, UUIDs and enums included."""
    return orjson.dumps(value).decode()


def create_engine(
    settings: Settings,
    *,
    service: str,
    pool_size: int | None = None,
    patience: float = 1.0,
    lock_timeout_s: float | None = None,
) -> AsyncEngine:
    """Return an engine whose waits are all bounded: connect, checkout, each statement, idle transactions.

    `pool_size` replaces the setting; `patience` multiplies the bounds of statements and idle transactions;
    `lock_timeout_s` bounds waits for a lock where they should end before the statement's time does.
    """
    arguments = connect_args(settings, service=service, patience=patience)
    if lock_timeout_s is not None:
        arguments["options"] += f" -c lock_timeout={int(lock_timeout_s * 1000)}"
    return create_async_engine(
        settings.database_url.get_secret_value(),
        pool_size=pool_size or settings.database_pool_size,
        max_overflow=0,
        pool_timeout=settings.database_timeout_s,
        pool_pre_ping=False,
        hide_parameters=True,  # they hold payloads and password hashes; errors end up in logs
        json_serializer=dumps,
        json_deserializer=orjson.loads,
        connect_args=arguments,
    )


def connect_args(settings: Settings, *, service: str, patience: float = 1.0) -> dict[str, Any]:
    """Return psycopg's arguments for one connection."""
    timeout_ms = int(settings.database_timeout_s * patience * 1000)
    connect_s = max(2, int(settings.database_timeout_s))
    return {
        "application_name": f"taskflow-{service}",
        "connect_timeout": connect_s,
        "options": f"-c timezone=UTC -c statement_timeout={timeout_ms} "
        f"-c idle_in_transaction_session_timeout={timeout_ms * 6}",
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": connect_s * 1000,  # a server that vanished in mid-request: the kernel's own is 15 minutes
    }


def plain_url(url: SecretStr) -> str:
    """Return the URL as libpq reads it, without SQLAlchemy's driver name."""
    return url.get_secret_value().replace("postgresql+psycopg://", "postgresql://", 1)


def create_sessions(engine: AsyncEngine) -> Sessions:
    """Return a factory of sessions whose objects stay readable after a commit."""
    return async_sessionmaker(engine, expire_on_commit=False)


async def driver_of(session: AsyncSession) -> AsyncConnection[Any]:
    """Return psycopg's connection of the session's transaction."""
    connection = await (await session.connection()).get_raw_connection()
    return cast("AsyncConnection[Any]", connection.driver_connection)


def is_timeout(error: BaseException) -> bool:
    """Whether PostgreSQL gave up on a statement because of statement_timeout or lock_timeout."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return isinstance(cause, QueryCanceled | LockNotAvailable)


def is_outage(error: BaseException) -> bool:
    """Whether the error says that PostgreSQL is away or overloaded, rather than that the statement is wrong."""
    if isinstance(error, PoolTimeout | ConnectionError | TimeoutError):
        return True
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    return isinstance(error, OperationalError | InterfaceError | psycopg.OperationalError | psycopg.InterfaceError)
