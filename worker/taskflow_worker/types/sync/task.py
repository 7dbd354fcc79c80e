"""The task type SYNC."""

from taskflow_core.handlers import Context, task_type
from taskflow_worker.types.sync.models import SyncPayload, SyncResult


@task_type("SYNC", timeout_s=900)
async def sync_records(ctx: Context, payload: SyncPayload) -> SyncResult:
    """Pull records over HTTP and bring a collection or an HTTP target up to date.

    All pages are pulled first. A collection is then written in the transaction that completes the task: its effects
    and the counts are exactly once. An HTTP target gets each record at least once, with a stable Idempotency-Key.
    """
    from taskflow_worker.types.sync import run

    return await run.run(ctx, payload)
