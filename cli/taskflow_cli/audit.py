"""`taskflow audit`: what must hold in a database, rule by rule."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taskflow_cli.failures import BadInput
from taskflow_cli.location import PLATFORM_FILE, read_platform
from taskflow_cli.options import RUN_PANEL, AsJson, examples
from taskflow_cli.output import print_json, say

if TYPE_CHECKING:
    from taskflow_core.audit import Audit

VARIABLE = "TASKFLOW_DATABASE_URL"
EXAMPLE = "postgresql://user:password@host:5432/database"
CONNECT_S = 10


def add_commands(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command(
        rich_help_panel=RUN_PANEL,
        epilog=examples("taskflow audit", "TASKFLOW_DATABASE_URL=postgresql://... taskflow audit --json"),
    )(audit)


def audit(
    database_url: Annotated[
        str | None,
        typer.Option(
            "--database-url",
            metavar="URL",
            help="Default: TASKFLOW_DATABASE_URL, which no other user can read, then the platform here.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check that a database holds together: every task accounted for, no history that contradicts another.

    Reads only, in one snapshot, beside a platform that works. Leaves with 0 if every rule holds, 1 if one is broken,
    2 if the database cannot be read.
    """
    found = audit_database(locate_database(database_url, environ=os.environ, folder=Path.cwd()))
    if as_json:
        print_json(to_json(found))
    else:
        print_audit(found)
    raise typer.Exit(0 if found.clean else 1)


def locate_database(option: str | None, *, environ: Mapping[str, str], folder: Path) -> str:
    """Return the database's address as libpq reads it: `option`, else the environment, else platform.json in `folder`.

    Raises:
        BadInput: none of them names one, or it cannot be read.
    """
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    platform = {} if option or environ.get(VARIABLE) else read_platform(folder / PLATFORM_FILE) or {}
    url = str(option or environ.get(VARIABLE) or platform.get("database_url") or "")
    if not url:
        raise BadInput("no database is named", hint=f"set {VARIABLE}, or run this where `taskflow up` keeps its data")
    plain = url.replace("postgresql+psycopg://", "postgresql://", 1)
    try:
        conninfo_to_dict(plain)
    except ProgrammingError:  # its words quote the address, which holds a password
        raise BadInput("the database's address cannot be read", hint=f"it must look like {EXAMPLE}") from None
    return plain


def audit_database(url: str) -> "Audit":
    """Audit the database at that address.

    Raises:
        BadInput: it cannot be reached or read.
    """
    import psycopg

    from taskflow_core.audit import audit as look_at

    try:
        with psycopg.connect(url, connect_timeout=CONNECT_S, application_name="taskflow-audit") as connection:
            return look_at(connection)
    except psycopg.errors.UndefinedTable as error:
        hint = "is it a database of TaskFlow, of this version? See: taskflow migrate --check"
        raise BadInput("the database holds other tables", details=_first_line(error), hint=hint) from None
    except psycopg.Error as error:
        raise BadInput("the database cannot be read", details=_first_line(error)) from None


def print_audit(found: "Audit") -> None:
    """Print the totals, each rule, and for a broken one why it matters and which tasks break it."""
    say(f"Audit of the snapshot of {found.taken_at:%Y-%m-%d %H:%M:%S %Z}")
    for name, counts in (("tasks", found.tasks), ("attempts", found.attempts), ("events", found.events)):
        parts = ", ".join(f"{key} {count:,}" for key, count in counts.items())
        say(f"  {name:<9} {sum(counts.values()):,}" + (f": {parts}" if parts else ""))
    for finding in found.findings:
        say(f"  {'ok' if not finding.violations else f'{finding.violations:,}':>9} {finding.name}")
        if finding.violations:
            say(f"  {'':>9} ({finding.why})")
        for task_id in finding.examples:
            say(f"  {'':>9} - {task_id}")
    broken = sum(finding.violations > 0 for finding in found.findings)
    say(f"{broken} of {len(found.findings)} rules are broken." if broken else f"All {len(found.findings)} rules hold.")


def to_json(found: "Audit") -> dict[str, Any]:
    """Return what was found for machines."""
    return {
        "clean": found.clean,
        "taken_at": found.taken_at.isoformat(),
        "tasks": found.tasks,
        "attempts": found.attempts,
        "events": found.events,
        "checks": [
            {
                "name": finding.name,
                "why": finding.why,
                "violations": finding.violations,
                "examples": [str(task_id) for task_id in finding.examples],
            }
            for finding in found.findings
        ],
    }


def _first_line(error: Exception) -> list[str]:
    return str(error).strip().splitlines()[:1]
