"""A whole sync: ask what is known, pull, bring the target up to date, remember."""

import tempfile
from hashlib import sha256
from urllib.parse import quote

from taskflow_core.addresses import AllowList
from taskflow_core.database import dumps
from taskflow_core.fetch import Client
from taskflow_core.handlers import Context
from taskflow_core.settings import WorkerSettings, load
from taskflow_worker.types.sync import http, store
from taskflow_worker.types.sync.models import HttpTarget, NextField, NoPages, SyncPayload, SyncResult
from taskflow_worker.types.sync.records import Record
from taskflow_worker.types.sync.source import Pulled, Validators, pull

TABLE_BATCH = 1_000
PUSH_BATCH = 50
ONE_RECORD_REFUSED = frozenset({400, 409, 413, 422})


async def run(ctx: Context, payload: SyncPayload) -> SyncResult:
    """Do what `sync_records` says."""
    collection = collection_of(payload)
    name = source_name(payload)
    async with ctx.new_session() as session:
        known = await store.known_validators(session, owner_id=ctx.owner_id, collection=collection, url=name)
    allow = AllowList.parse(load(WorkerSettings).fetch_allow_hosts)
    async with Client(allow) as client:
        with tempfile.TemporaryFile() as spool:
            pulled = await pull(ctx, client, payload.source, payload.key, known=known, spool=spool)
            if pulled.not_modified:
                return SyncResult(not_modified=True)
            result = SyncResult(pages=pulled.pages, records=pulled.records, truncated=pulled.truncated)
            if isinstance(payload.target, HttpTarget):
                await _push(ctx, client, payload.target, pulled, result, collection)
            else:
                await _store(ctx, pulled, result, collection)
    said = pulled.validators if _is_whole(payload, pulled) else Validators()
    await store.remember(await ctx.session(), said, owner_id=ctx.owner_id, collection=collection, url=name)
    result.rejected, result.reasons = pulled.rejected, pulled.reasons
    ctx.log.info("sync.finished", **result.model_dump(exclude={"reasons"}))
    return result


def collection_of(payload: SyncPayload) -> str:
    """Return the collection's name; for an HTTP target a derived one, which users cannot name."""
    if isinstance(payload.target, HttpTarget):
        return "push:" + sha256(payload.target.url.encode()).hexdigest()[:40]
    return payload.target.collection


def source_name(payload: SyncPayload) -> str:
    """Return the source's URL with a mark of how it is read: read differently, it is to be pulled anew."""
    reading = dumps([payload.source.model_dump(mode="json"), payload.key])
    return f"{payload.source.url}#{sha256(reading.encode()).hexdigest()[:16]}"


def _is_whole(payload: SyncPayload, pulled: Pulled) -> bool:
    """Whether the first page's validators speak for the whole source: it was all there was, and says so itself."""
    says_so = isinstance(payload.source.pagination, NoPages | NextField)
    return says_so and pulled.pages == 1 and not pulled.truncated


async def _store(ctx: Context, pulled: Pulled, result: SyncResult, collection: str) -> None:
    done = 0
    for batch in pulled.batches(TABLE_BATCH):
        ctx.check_cancel()
        counts = await store.upsert(
            await ctx.session(), batch, owner_id=ctx.owner_id, collection=collection, task_id=ctx.task_id
        )
        _count(result, counts)
        done += len(batch)
        ctx.progress(done, pulled.records, f"{done} records stored")


async def _push(
    ctx: Context, client: Client, target: HttpTarget, pulled: Pulled, result: SyncResult, collection: str
) -> None:
    done = 0
    for batch in pulled.batches(PUSH_BATCH):
        async with ctx.new_session() as session:
            known = await store.digests(
                session, [record.key for record in batch], owner_id=ctx.owner_id, collection=collection
            )
        pushed: list[Record] = []
        try:
            for record in batch:
                if known.get(record.key) == record.digest and not target.push_unchanged:
                    result.unchanged += 1
                elif await _put(ctx, client, target, record, pulled, result):
                    pushed.append(record)
        finally:  # what the target has is remembered even when the next record fails
            async with ctx.new_session() as session:
                await store.upsert(
                    session, pushed, owner_id=ctx.owner_id, collection=collection, task_id=ctx.task_id, keep=False
                )
                await session.commit()
        done += len(batch)
        ctx.progress(done, pulled.records, f"{done} records pushed")


async def _put(
    ctx: Context, client: Client, target: HttpTarget, record: Record, pulled: Pulled, result: SyncResult
) -> bool:
    """Push one record and count it; whether the target has it now."""
    if record.key in {".", ".."}:
        pulled.reject(f"key {record.key!r} cannot be part of a URL")
        return False
    headers = {
        **target.headers,
        "Content-Type": "application/json",
        "Idempotency-Key": sha256(f"{ctx.idempotency_key}:{record.key}".encode()).hexdigest(),
    }
    url = f"{target.url.rstrip('/')}/{quote(record.key, safe='')}"
    answer = await http.request(ctx, client, "PUT", url, headers=headers, content=record.text.encode())
    if answer.status in ONE_RECORD_REFUSED:
        pulled.reject(f"key {record.key[:100]!r}: the target answered {answer.status}")
        return False
    if answer.status == 304:
        result.unchanged += 1
        return True
    http.check(answer, side="target")
    if answer.status == 201:
        result.created += 1
    else:
        result.updated += 1
    return True


def _count(result: SyncResult, counts: store.Counts) -> None:
    result.created += counts.created
    result.updated += counts.updated
    result.unchanged += counts.unchanged
