"""Commands that run the platform: its processes, the schema, and everything at once."""

import importlib
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from taskflow_cli.failures import BadInput
from taskflow_cli.options import RUN_PANEL, AsJson, examples
from taskflow_cli.output import print_json, say

INSTALL = "pip install 'taskflow-platform[embedded]'"


def add_commands(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command(
        rich_help_panel=RUN_PANEL, epilog=examples("taskflow up", "taskflow up --data-dir /srv/taskflow --port 9000")
    )(up)
    app.command(rich_help_panel=RUN_PANEL, epilog=examples("taskflow api", "TASKFLOW_API_PORT=9000 taskflow api"))(api)
    app.command(
        rich_help_panel=RUN_PANEL,
        epilog=examples("taskflow worker", "TASKFLOW_QUEUES=high,default TASKFLOW_SLOTS=4 taskflow worker"),
    )(worker)
    app.command(rich_help_panel=RUN_PANEL, epilog=examples("taskflow scheduler"))(scheduler)
    app.command(rich_help_panel=RUN_PANEL, epilog=examples("taskflow operator"))(operator)
    app.command(rich_help_panel=RUN_PANEL, epilog=examples("taskflow migrate", "taskflow migrate --check"))(migrate)


def up(
    data_dir: Annotated[Path, typer.Option("--data-dir", metavar="FOLDER", help="Where everything is kept.")] = Path(
        ".taskflow"
    ),
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Where the API listens.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="The API's port; 0 picks a free one.")] = 8000,
    slots: Annotated[int, typer.Option(min=1, max=1000, help="How many tasks run at once.")] = 16,
    queues: Annotated[str, typer.Option(help="Queues to work on, first ones first.")] = "high,default,low",
    quiet: Annotated[bool, typer.Option("--quiet", help="Logs go to files in the data folder.")] = False,
) -> None:
    """Run a whole platform on this machine until Ctrl-C.

    PostgreSQL, Valkey, the API, a worker, the scheduler and a mail catcher: nothing needs to be installed beside, and
    no mail leaves the machine. Data is kept for the next start.
    """
    require_embedded()
    from taskflow_cli.embedded.platform import PlatformOptions, run_platform

    options = PlatformOptions(data_dir=data_dir, host=host, api_port=port, slots=slots, queues=queues, quiet=quiet)
    raise typer.Exit(run_platform(options))


def require_embedded() -> None:
    """Raise BadInput unless the packages of the embedded platform are installed."""
    if find_spec("aiosmtpd") is None:
        raise BadInput("the embedded platform is not installed", hint=f"install it with: {INSTALL}")


def api() -> None:
    """Run the REST API in this process.

    Settings come from the environment: TASKFLOW_DATABASE_URL, TASKFLOW_REDIS_URL and TASKFLOW_JWT_SECRET must be set.
    """
    _run("taskflow_api.main")


def worker() -> None:
    """Run a worker in this process.

    Settings come from the environment: TASKFLOW_DATABASE_URL and TASKFLOW_REDIS_URL must be set. SIGTERM lets running
    tasks finish, or gives them back.
    """
    _run("taskflow_worker.main")


def scheduler() -> None:
    """Run the scheduler in this process: due tasks, lost tasks, retention. Several may run.

    Settings come from the environment: TASKFLOW_DATABASE_URL and TASKFLOW_REDIS_URL must be set.
    """
    _run("taskflow_worker.scheduler")


def operator() -> None:
    """Run the Kubernetes operator in this process; it needs the extra `operator` and a service account or kubeconfig.

    It creates what each TaskFlowCluster describes and lets its workers follow the queue.
    """
    if find_spec("kopf") is None:
        raise BadInput(
            "the operator is not installed", hint="install it with: pip install 'taskflow-platform[operator]'"
        )
    _run("taskflow_operator.main")


def migrate(
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; leave with 1 if the schema is not what this version needs.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Bring the database's schema to what this version needs.

    Settings come from the environment: TASKFLOW_DATABASE_URL and TASKFLOW_REDIS_URL must be set. Several may start at
    once: one works, the others wait for it.
    """
    from sqlalchemy.exc import OperationalError

    from taskflow_core import revisions, schema
    from taskflow_core.settings import Settings, load_or_exit

    settings = load_or_exit(Settings)
    known = revisions.known()
    try:
        before = schema.current(settings)
        if not check and not revisions.serves(before, known):
            schema.migrate(settings)
        now = schema.current(settings)
    except OperationalError as error:
        raise BadInput(
            "cannot use the database that TASKFLOW_DATABASE_URL names", details=str(error.orig).strip().splitlines()
        ) from None
    if as_json:
        print_json({"from": before, "to": now, "needed": known[0]})
    else:
        say(_verdict(before, now, known))
    if not revisions.serves(now, known):
        raise typer.Exit(1)


def _verdict(before: str | None, now: str | None, known: list[str]) -> str:
    if now not in (None, *known):
        return f"The schema is at {now}, newer than {known[0]}; this version works on it as it is."
    if now != known[0]:
        return f"The schema is at {now or 'no revision'}; this version needs {known[0]}. Run: taskflow migrate"
    if before == now:
        return f"The schema is at {now}, as this version needs."
    return f"Migrated the schema from {before or 'no revision'} to {now}."


def _run(module: str) -> None:
    importlib.import_module(module).main()
