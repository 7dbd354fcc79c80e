"""What syncs keep in the database: the records of a collection, and what a source said of its content."""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import delete, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from taskflow_core.models.effects import SyncedRecord, SyncSource
from taskflow_worker.types.sync.records import Record
from taskflow_worker.types.sync.source import Validators

# A row that a statement inserted has no xmax; one that it updated holds its own transaction there. Rows whose digest
# is the same do not come back. Sorted, so that two syncs of one collection cannot wait for each other in a circle.
UPSERT = text(
    """
    INSERT INTO synced_records AS kept (owner_id, collection, key, data, digest, task_id)
    SELECT :owner_id, :collection, key, data::jsonb, digest, :task_id
    FROM unnest(CAST(:keys AS text[]), CAST(:texts AS text[]), CAST(:digests AS bytea[])) AS new (key, data, digest)
    ORDER BY key
    ON CONFLICT (owner_id, collection, key) DO UPDATE
    SET data = excluded.data, digest = excluded.digest, task_id = excluded.task_id, updated_at = now()
    WHERE kept.digest <> excluded.digest
    RETURNING (kept.xmax = 0) AS created
    """
)


class Counts(NamedTuple):
    """How many records a batch created, updated and left as they were."""

    created: int
    updated: int
    unchanged: int


async def upsert(
    session: AsyncSession,
    records: Sequence[Record],
    *,
    owner_id: UUID,
    collection: str,
    task_id: UUID,
    keep: bool = True,
) -> Counts:
    """Bring a collection up to date with records whose keys are distinct. Without `keep` only digests are stored."""
    rows = await session.scalars(
        UPSERT,
        {
            "owner_id": owner_id,
            "collection": collection,
            "task_id": task_id,
            "keys": [record.key for record in records],
            "texts": [record.text if keep else "{}" for record in records],
            "digests": [record.digest for record in records],
        },
    )
    written = rows.all()
    created = sum(bool(was_created) for was_created in written)
    return Counts(created, len(written) - created, len(records) - len(written))


async def digests(session: AsyncSession, keys: Sequence[str], *, owner_id: UUID, collection: str) -> dict[str, bytes]:
    """Return the digests of those of the keys that the collection holds."""
    rows = await session.execute(
        select(col(SyncedRecord.key), col(SyncedRecord.digest)).where(
            col(SyncedRecord.owner_id) == owner_id,
            col(SyncedRecord.collection) == collection,
            col(SyncedRecord.key).in_(keys),
        )
    )
    return dict(rows.all())


async def known_validators(session: AsyncSession, *, owner_id: UUID, collection: str, url: str) -> Validators:
    """Return what the source said at the last completed sync."""
    row = await session.get(SyncSource, (owner_id, collection, url))
    return Validators() if row is None else Validators(row.etag, row.last_modified)


async def remember(session: AsyncSession, said: Validators, *, owner_id: UUID, collection: str, url: str) -> None:
    """Keep what the source said, or forget what it said before when it says nothing now."""
    if not said.headers():
        await session.execute(
            delete(SyncSource).where(
                col(SyncSource.owner_id) == owner_id,
                col(SyncSource.collection) == collection,
                col(SyncSource.url) == url,
            )
        )
        return
    changed = {"etag": said.etag, "last_modified": said.last_modified, "updated_at": func.now()}
    statement = insert(SyncSource).values(owner_id=owner_id, collection=collection, url=url, **changed)
    await session.execute(
        statement.on_conflict_do_update(index_elements=["owner_id", "collection", "url"], set_=changed)
    )
