"""The command `taskflow chaos`, and how it prints what was found."""

import asyncio
import secrets
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taskflow_cli.audit import print_audit
from taskflow_cli.audit import to_json as audit_to_json
from taskflow_cli.failures import BadInput, Failure
from taskflow_cli.options import RUN_PANEL, AsJson, examples
from taskflow_cli.output import print_json, say
from taskflow_cli.processes import require_embedded

if TYPE_CHECKING:
    from taskflow_cli.chaos.run import Options, Outcome

MOST_SHOWN = 20


def add_commands(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command(
        rich_help_panel=RUN_PANEL,
        epilog=examples("taskflow chaos --seconds 60 --seed 7", "taskflow chaos --seconds 600 --clients 8 --json"),
    )(chaos)


def chaos(
    seconds: Annotated[float, typer.Option(min=1, max=86_400, help="For how long parts are broken.")] = 60,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="The same seed gives the same faults in the same order. Default: a new one."),
    ] = None,
    clients: Annotated[int, typer.Option(min=1, max=64, help="How many clients submit tasks all the time.")] = 4,
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", metavar="FOLDER", help="Its data and logs, kept. Default: a temporary one."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Break a platform of its own under load, and prove that nothing is lost and nothing done twice.

    Workers, schedulers, API, Valkey and PostgreSQL are killed, frozen, emptied and restarted while clients submit,
    cancel and retry tasks. Then every task must end; what was promised is held against what is there, and the audit
    runs. Leaves with 0 only if every promise was kept. Ctrl-C stops breaking things and judges what is there.
    """
    require_embedded()
    from taskflow_cli.chaos.run import Options

    if data_dir is not None and data_dir.exists() and any(data_dir.iterdir()):
        raise BadInput(f"--data-dir: {data_dir} is not empty", hint="name a new folder: what is there would be broken")
    chosen = secrets.randbelow(2**31) if seed is None else seed
    folder = data_dir or Path(tempfile.mkdtemp(prefix="taskflow-chaos-"))
    if data_dir is None:
        folder.chmod(0o711)  # started by root, PostgreSQL runs as another account, which must pass through
    outcome = _run(Options(seconds=seconds, seed=chosen, clients=clients, folder=folder))
    if data_dir is None and outcome.clean:
        shutil.rmtree(folder, ignore_errors=True)
    if as_json:
        print_json(to_json(outcome))
    else:
        print_outcome(outcome)
    raise typer.Exit((130 if outcome.interrupted else 0) if outcome.clean else 1)


def _run(options: "Options") -> "Outcome":
    from taskflow_cli.chaos.run import Run
    from taskflow_cli.embedded.errors import CannotStart

    def tell(line: str) -> None:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()

    tell(f"seed {options.seed}: to repeat these faults, add --seed {options.seed}")
    try:
        return asyncio.run(Run(options, tell).run())
    except CannotStart as error:
        raise (BadInput if error.status == BadInput.exit_code else Failure)(error.message) from None
    except OSError as error:
        raise Failure(f"{error.filename or 'the platform'}: {error.strerror}") from None


def print_outcome(outcome: "Outcome") -> None:
    """Print what was done, what became of the tasks, and each promise that was not kept."""
    verdict, ledger = outcome.verdict, outcome.ledger
    faults = ", ".join(f"{name} {count}" for name, count in sorted(outcome.faults.items()))
    say(f"\nChaos with seed {outcome.options.seed}" + (", interrupted" if outcome.interrupted else ""))
    say(f"  faults      {outcome.faults.total()}: {faults}")
    say(
        f"  accepted    {verdict.accepted} tasks; {ledger.unanswered} requests got no clear answer, "
        f"{verdict.stored_unanswered} of these made a task"
    )
    say(f"  repeated    {ledger.answers['create replayed']} requests under a key got the first answer again")
    say("  ended       " + ", ".join(f"{status} {count}" for status, count in sorted(verdict.statuses.items())))
    say("  failed for  " + (", ".join(f"{why} {count}" for why, count in verdict.reasons.most_common()) or "no reason"))
    say(f"  lost        {len(verdict.lost)}")
    say(f"  doubled     {len(verdict.doubled)}")
    say(f"  unfinished  {len(verdict.unfinished)}, {outcome.quiet_after_s:.1f} s after the last fault")
    say(f"  mails       {verdict.mails}; {verdict.mails_twice.total()} sent theirs again")
    for outcomes, count in verdict.mails_twice.most_common():
        say(f"              {count} with attempts that ended as {outcomes}")
    say(f"  stall       {verdict.stall_s:.1f} s was the longest time in which nothing ended")
    say(f"  audits      {outcome.live_audits} while parts were being broken, and this one after:\n")
    for name, task_ids in outcome.broken_live.items():
        say(f"  broken while parts were being broken: {name}: {', '.join(task_ids)}")
    if outcome.audit is not None:
        print_audit(outcome.audit)
    for sentence in verdict.broken[:MOST_SHOWN]:
        say(f"  broken: {sentence}")
    if len(verdict.broken) > MOST_SHOWN:
        say(f"  ... and {len(verdict.broken) - MOST_SHOWN} more")
    say("Every promise was kept." if outcome.clean else f"Not every promise was kept; see {outcome.options.folder}.")


def to_json(outcome: "Outcome") -> dict[str, Any]:
    """Return what was done and found for machines."""
    verdict, ledger = outcome.verdict, outcome.ledger
    return {
        "clean": outcome.clean,
        "interrupted": outcome.interrupted,
        "seed": outcome.options.seed,
        "seconds": outcome.options.seconds,
        "data_dir": str(outcome.options.folder),
        "faults": dict(outcome.faults),
        "faults_missed": outcome.missed,
        "answers": dict(ledger.answers),
        "accepted": verdict.accepted,
        "unanswered": ledger.unanswered,
        "unanswered_stored": verdict.stored_unanswered,
        "statuses": dict(verdict.statuses),
        "failed_for": dict(verdict.reasons),
        "lost": [str(task_id) for task_id in verdict.lost],
        "doubled": [str(task_id) for task_id in verdict.doubled],
        "unfinished": [str(task_id) for task_id in verdict.unfinished],
        "quiet_after_s": round(outcome.quiet_after_s, 1),
        "longest_stall_s": round(verdict.stall_s, 1),
        "mails": verdict.mails,
        "mails_twice": dict(verdict.mails_twice),
        "broken": verdict.broken,
        "live_audits": outcome.live_audits,
        "broken_live": outcome.broken_live,
        "audit": audit_to_json(outcome.audit) if outcome.audit else None,
    }
