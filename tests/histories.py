"""A database in which every legal thing has happened to some task."""

import time
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg

from children import Client
from taskflow_core import leases, recovery, tasks
from taskflow_core.clock import utc_now
from taskflow_core.leases import Claimed, Finished, LogLine
from taskflow_core.lifecycle import Ending, canceled, completed, failed, released, retried_or_failed, snoozed

WORKER = "host-1-boot"
REGISTER = """
INSERT INTO workers (id, name, hostname, pid, queues, slots, version) VALUES (%s, 'w', 'h', 1, '{default}', 1, '')
"""


class History:
    """Tasks that went every legal way, by name."""

    def __init__(self, client: Client, connection: psycopg.AsyncConnection[Any]) -> None:
        self.client = client
        self.connection = connection
        self.ids: dict[str, UUID] = {}

    async def create(self, name: str, **fields: Any) -> UUID:
        self.ids[name] = await self.client.submit("NAP", deliver=False, **fields)
        return self.ids[name]

    async def claim(self, name: str, *, lease_s: float = 3600) -> Claimed:
        await self.connection.execute("UPDATE tasks SET run_at = now() WHERE id = %s", [self.ids[name]])
        held = [row[0] for row in await (await self.connection.execute("SELECT unnest(held) FROM workers")).fetchall()]
        (claimed,) = await leases.claim(self.connection, [self.ids[name]], worker=WORKER, held=held, lease_s=lease_s)
        return claimed

    async def run(self, name: str, ending: Ending) -> None:
        claimed = await self.claim(name)
        await leases.report(self.connection, [(claimed, {"done": 1})], worker=WORKER)
        await self.finish(claimed, ending)

    async def finish(self, claimed: Claimed, ending: Ending) -> None:
        line = LogLine(1, time.monotonic(), "info", "over", {})
        assert await leases.finish(self.connection, [Finished(claimed, ending, [line])], worker=WORKER) == {claimed.id}

    async def lose(self, name: str) -> None:
        await self.claim(name, lease_s=-1)
        assert [task.id for task in await recovery.expire(self.connection)] == [self.ids[name]]

    async def retry(self, name: str) -> None:
        async with self.client.sessions() as session:
            await tasks.retry(session, self.ids[name], actor=self.client.actor)
            await session.commit()


def retried() -> Ending:
    return retried_or_failed({"code": "retry", "message": "later"}, attempt=1, max_attempts=3, spread=0.5, after_s=3600)


async def fill(client: Client, connection: psycopg.AsyncConnection[Any]) -> dict[str, UUID]:
    """Let everything happen; return the tasks by name."""
    await connection.execute(REGISTER, [WORKER])
    made = History(client, connection)
    await finished_tasks(made)
    await open_tasks(made)
    return made.ids


async def finished_tasks(made: History) -> None:
    await made.create("completed")
    await made.run("completed", completed('{"value": 1}'))
    await made.create("failed", max_attempts=1)
    await made.run("failed", failed("broken", "it broke"))
    await made.create("by_hand", max_attempts=2)
    for ending in (retried(), failed("broken", "it broke"), failed("broken", "again")):
        await made.run("by_hand", ending)
        if ending.status == "FAILED":
            await made.retry("by_hand")
    await made.run("by_hand", completed(None))
    await made.create("twice_failed")
    await made.run("twice_failed", failed("broken", "it broke"))
    await made.retry("twice_failed")
    await made.run("twice_failed", failed("broken", "it broke"))
    await made.create("canceled")
    await made.client.cancel(made.ids["canceled"])
    for name, ending in (("stopped", canceled()), ("released_and_canceled", released())):
        await made.create(name)
        claimed = await made.claim(name)
        await made.client.cancel(claimed.id)
        await made.client.cancel(claimed.id)
        await made.finish(claimed, ending)
    await made.create("odyssey", max_attempts=3)
    for ending in (retried(), released(), snoozed(utc_now()), released()):
        await made.run("odyssey", ending)
    await made.lose("odyssey")
    await made.run("odyssey", completed(None))
    await made.create("lost", max_attempts=1)
    await made.lose("lost")


async def open_tasks(made: History) -> None:
    await made.create("waiting")
    await made.create("delayed", run_at=utc_now() + timedelta(hours=1))
    await made.create("keyed", dedup_key="k")
    await made.create("retrying")
    await made.run("retrying", retried())
    await made.create("running")
    await made.claim("running")
    await made.create("running_again")
    await made.run("running_again", failed("broken", "it broke"))
    await made.retry("running_again")
    await made.run("running_again", released())
    await made.claim("running_again")
