"""The database's schema: brings it up, takes it down, says where it stands; one process at a time."""

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Engine, NullPool, create_engine, text

from taskflow_core.revisions import known, scripts
from taskflow_core.settings import Settings

LOCK = 7_461_836_201  # any constant: all migrations of TaskFlow take the same advisory lock
LOCK_TIMEOUT_S = 60


class UnknownRevision(Exception):
    """The database is at a revision that this version of the code does not have."""


def head() -> str:
    """Return the revision that this version of the code brings."""
    return known()[0]


def current(settings: Settings) -> str | None:
    """Return the revision the database is at, or None when it is empty."""
    with _engine(settings).connect() as connection:
        return _revision(connection)


def migrate(settings: Settings, revision: str = "head") -> None:
    """Bring the schema up to `revision`; `base` takes everything down.

    Raises:
        UnknownRevision: a newer version of the code has been here.
        sqlalchemy.exc.OperationalError: PostgreSQL is away, or another migration held the lock for over a minute.
    """
    with _engine(settings).connect() as connection, connection.begin():
        connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT_S}s'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
        _check_known(_revision(connection))
        _run(connection, revision)


def _engine(settings: Settings) -> Engine:
    return create_engine(
        settings.database_url.get_secret_value(),
        poolclass=NullPool,
        connect_args={"connect_timeout": max(2, int(settings.database_timeout_s))},
    )


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _check_known(revision: str | None) -> None:
    if revision is not None and revision not in known():
        raise UnknownRevision(
            f"the database is at revision {revision}, which this version of TaskFlow does not know (its newest is "
            f"{head()}): use the version that brought the database there, or a newer one"
        )


def _run(connection: Connection, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(scripts()))
    config.attributes["connection"] = connection
    if revision == "base":
        command.downgrade(config, revision)
    else:
        command.upgrade(config, revision)
