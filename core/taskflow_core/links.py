"""One autocommit connection for hot statements: opened on first use, opened again after it broke."""

import asyncio
import random
from typing import Any, LiteralString

import orjson
from psycopg import AsyncConnection, Connection
from psycopg.types.json import set_json_loads

from taskflow_core.database import connect_args, dumps, plain_url
from taskflow_core.settings import Settings

# Every hot statement finds few rows by their ids. The planner cannot know how many ids a parameter holds: it guesses
# high, reads a small table whole, and plans anew each time. Told the way, it walks the primary key in the ids' order.
PLANS = {
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_generic_plan",
}
HOT = "".join(f" -c {name}={value}" for name, value in PLANS.items())
HOT_LOCALLY: LiteralString = "SELECT set_config(key, value, true) FROM jsonb_each_text(%s::jsonb)"


class Link:
    """A connection that one loop uses, one statement at a time. It is never shared."""

    def __init__(self, settings: Settings, *, service: str, planner: str = HOT) -> None:
        self._url = plain_url(settings.database_url)
        self._arguments = connect_args(settings, service=service)
        self._arguments["options"] += planner
        self._connection: AsyncConnection[Any] | None = None

    async def get(self) -> AsyncConnection[Any]:
        """Return the open connection.

        Raises:
            psycopg.OperationalError: PostgreSQL cannot be reached.
        """
        if self._connection is None or self._connection.closed:
            self._connection = await AsyncConnection.connect(self._url, autocommit=True, **self._arguments)
            set_json_loads(orjson.loads, self._connection)
        return self._connection

    async def drop(self) -> None:
        """Close the connection after an error; the next `get` opens a new one."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.close()


def connect_blocking(settings: Settings, *, service: str) -> Connection[Any]:
    """Return a connection for a thread that has no loop, its hot statements planned as on a link.

    Raises:
        psycopg.OperationalError: PostgreSQL cannot be reached.
    """
    arguments = connect_args(settings, service=service)
    arguments["options"] += HOT  # else a join may lock rows as they lie, and not in the order of their ids
    return Connection.connect(plain_url(settings.database_url), autocommit=True, **arguments)


async def plan_hot(connection: AsyncConnection[Any]) -> None:
    """Have the rest of a transaction planned as on a link, until it ends."""
    await connection.execute(HOT_LOCALLY, [dumps(PLANS)])


async def pause(failures: int, *, cap_s: float = 5.0, stop: asyncio.Event | None = None) -> None:
    """Wait before try number `failures` + 1: 0.1 s doubled each time, capped, half of it jitter; `stop` ends it."""
    wait_s = min(cap_s, 0.1 * 2 ** min(failures, 10)) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter is no secret
    if stop is None:
        await asyncio.sleep(wait_s)
        return
    try:
        await asyncio.wait_for(stop.wait(), wait_s)
    except TimeoutError:
        return
