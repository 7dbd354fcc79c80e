"""Procrastinate on the same PostgreSQL, ten tasks at a time."""

import asyncio
import os

from procrastinate import App, PsycopgConnector

app = App(connector=PsycopgConnector(conninfo=os.environ["BENCH_DATABASE_URL"]))


@app.task(name="noop")
async def noop() -> None:
    """Do nothing."""


def enqueue(count: int) -> None:
    """Bring the schema up where it is missing, and defer `count` tasks."""

    async def send() -> None:
        async with app.open_async():
            if not await app.check_connection_async():
                await app.schema_manager.apply_schema_async()
            for start in range(0, count, 500):
                await noop.batch_defer_async(*({} for _ in range(min(500, count - start))))

    asyncio.run(send())
