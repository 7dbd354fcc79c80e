"""Alembic's environment: `taskflow migrate` hands in a connection, the alembic command opens its own."""

from alembic import context
from sqlalchemy import Connection, create_engine
from sqlmodel import SQLModel

from taskflow_core.models import effects, runtime, tasks, users
from taskflow_core.settings import Settings, load

MODELS = (effects, runtime, tasks, users)  # importing them fills the metadata


def run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=SQLModel.metadata, compare_type=True)
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    with create_engine(load(Settings).database_url.get_secret_value()).connect() as opened:
        run(opened)
