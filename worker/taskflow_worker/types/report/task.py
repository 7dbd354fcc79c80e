"""The task type REPORT."""

from taskflow_core.handlers import Context, task_type
from taskflow_worker.types.report.models import ReportPayload, ReportResult


@task_type("REPORT", timeout_s=600)
async def write_report(ctx: Context, payload: ReportPayload) -> ReportResult:
    """Count the owner's tasks of a period and write the report's files.

    All numbers come from one snapshot of the database. The files exist exactly when the task is COMPLETED.
    """
    from taskflow_worker.types.report import run

    return await run.run(ctx, payload)
