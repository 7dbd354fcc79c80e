"""The database's schema: brings it up, takes it down, says where it stands; one process at a time."""

from pathlib import Path
from typing import cast

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, NullPool, create_engine, text

from taskflow_core.settings import Settings

LOCK = 7_461_836_201  # any constant: all migrations of TaskFlow take the same advisory lock
LOCK_TIMEOUT_S = 60


def scripts() -> Path:
    """Return the folder of the migrations: inside the installed package, or at the root of a checkout."""
    here = Path(__file__).parent
    packaged = here / "migrations"
    return packaged if packaged.is_dir() else here.parents[1] / "migrations"


def head() -> str:
    """Return the revision that this version of the code needs."""
    return cast("str", ScriptDirectory(str(scripts())).get_current_head())


def current(settings: Settings) -> str | None:
    """Return the revision the database is at, or None when it is empty."""
    engine = create_engine(settings.database_url.get_secret_value(), poolclass=NullPool)
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def migrate(settings: Settings, revision: str = "head") -> None:
    """Bring the schema to `revision`; `base` takes everything down.

    Raises:
        sqlalchemy.exc.OperationalError: PostgreSQL is away, or another migration held the lock for over a minute.
    """
    engine = create_engine(settings.database_url.get_secret_value(), poolclass=NullPool)
    with engine.connect() as connection, connection.begin():
        connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT_S}s'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
        _run(connection, revision)


def _run(connection: Connection, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(scripts()))
    config.attributes["connection"] = connection
    if revision in {"head", head()}:
        command.upgrade(config, revision)
    else:
        command.downgrade(config, revision)
