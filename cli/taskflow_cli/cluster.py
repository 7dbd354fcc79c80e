"""Commands about platforms on Kubernetes: operator, cluster status, explain, pause, resume."""

import importlib
from collections.abc import Iterator
from datetime import datetime
from importlib.util import find_spec
from typing import Annotated, Any, cast

import typer

from taskflow_cli.failures import BadInput, Unreachable
from taskflow_cli.options import RUN_PANEL, AsJson, examples
from taskflow_cli.output import age, print_json, print_table, say

INSTALL = "pip install 'taskflow-platform[operator]'"
Body = dict[str, Any]

ClusterName = Annotated[str, typer.Argument(metavar="NAME", help="The TaskFlowCluster's name.")]
Namespace = Annotated[
    str | None,
    typer.Option("--namespace", "-n", metavar="NAMESPACE", help="Default: that of the kubeconfig's current context."),
]


def add_commands(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command(
        rich_help_panel=RUN_PANEL,
        epilog=examples("taskflow operator", "TASKFLOW_WATCH_NAMESPACES=team-a,team-b taskflow operator"),
    )(operator)
    group = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode="rich",
        help="See how platforms on Kubernetes stand, and pause their operator.",
        epilog=examples("taskflow cluster status shop", "taskflow cluster explain shop --namespace team-a"),
    )
    group.command(epilog=examples("taskflow cluster status shop", "taskflow cluster status shop --json"))(status)
    group.command(epilog=examples("taskflow cluster explain shop"))(explain)
    group.command(epilog=examples("taskflow cluster pause shop"))(pause)
    group.command(epilog=examples("taskflow cluster resume shop"))(resume)
    app.add_typer(group, name="cluster", rich_help_panel=RUN_PANEL)


def operator() -> None:
    """Run the Kubernetes operator in this process.

    It finds its cluster as a pod does, or by KUBECONFIG; several may run, one of them leads.
    """
    _module("main").main()


def status(name: ClusterName, namespace: Namespace = None, as_json: AsJson = False) -> None:
    """Show the phase of a platform, its processes and its pools."""
    cluster = _call("read", name, namespace)
    seen = cluster.get("status", {})
    if as_json:
        print_json(seen)
        return
    say(f"{name} is {seen.get('phase', 'Pending')}.")
    print_table(("PART", "READY", "OF", "DESIRED", "BUSY", "IDLE", "DRAINING"), _parts(seen))


def explain(name: ClusterName, namespace: Namespace = None, as_json: AsJson = False) -> None:
    """Say in words how a platform stands, why, and what the last scaling decision was made from."""
    from taskflow_core.clock import utc_now

    cluster = _call("read", name, namespace)
    seen = cluster.get("status", {})
    if as_json:
        print_json({"conditions": seen.get("conditions", []), "scaling": seen.get("scaling", {})})
        return
    say(f"{name} is {seen.get('phase', 'Pending')}.")
    if seen.get("observedGeneration", 0) < cluster["metadata"].get("generation", 0):
        say("The operator has not looked at the newest spec yet. Is it running? kubectl get pods -A | grep operator")
    now = utc_now()
    rows = [
        (
            item["type"],
            item["status"],
            item["reason"],
            age(datetime.fromisoformat(item["lastTransitionTime"]), now=now),
            item.get("message", ""),
        )
        for item in seen.get("conditions", [])
    ]
    print_table(("CONDITION", "STATUS", "REASON", "SINCE", "MESSAGE"), rows)
    for line in (*_scaling(seen.get("scaling", {})), *_scaling_of_pools(seen.get("pools", []))):
        say(line)


def pause(name: ClusterName, namespace: Namespace = None) -> None:
    """Let the operator leave a platform alone; what runs goes on."""
    _call("set_paused", name, namespace, paused=True)
    say(f"{name} is paused: nothing of it is reconciled or scaled. Go on with: taskflow cluster resume {name}")


def resume(name: ClusterName, namespace: Namespace = None) -> None:
    """Let the operator look after a platform again."""
    cluster = _call("set_paused", name, namespace, paused=False)
    if cluster.get("spec", {}).get("paused"):
        raise BadInput(f"{name} stays paused", hint="its spec says so: set spec.paused to false")
    say(f"{name} is looked after again.")


def _parts(seen: Body) -> Iterator[tuple[str, ...]]:
    for part in ("api", "scheduler"):
        held = seen.get(part, {})
        yield (part, str(held.get("readyReplicas", 0)), str(held.get("replicas", 0)), "-", "-", "-", "-")
    for pool in (seen.get("workers", {}), *seen.get("pools", [])):
        counts = ("readyReplicas", "replicas", "desired", "busy", "idle", "draining")
        yield (f"pool {pool.get('name', 'default')}", *(str(pool.get(count, 0)) for count in counts))


def _scaling(decision: Body) -> Iterator[str]:
    if decision.get("reason"):
        inputs = decision.get("inputs", {})
        yield f"Last decision: {decision['reason']}"
        yield (
            f"It was made from {inputs.get('waiting', 0)} waiting and {inputs.get('inFlight', 0)} running tasks, the "
            f"oldest waiting for {inputs.get('oldestSeconds', 0)} s: {decision.get('recommended', 0)} pods are "
            f"recommended, {decision.get('desired', 0)} desired."
        )


def _scaling_of_pools(pools: list[Body]) -> Iterator[str]:
    for pool in pools:
        if pool.get("reason"):
            yield f"Last decision about the pool {pool['name']}: {pool['reason']}"


def _module(name: str) -> Any:
    """Return a module of the operator, which not every installation has the packages for."""
    if find_spec("kopf") is None or find_spec("kubernetes") is None:
        raise BadInput("the packages for Kubernetes are not installed", hint=f"install them with: {INSTALL}")
    return importlib.import_module(f"taskflow_operator.{name}")


def _call(function: str, *arguments: object, **options: object) -> Body:
    from taskflow_core.errors import TaskFlowError, Unavailable

    try:
        return cast("Body", getattr(_module("command"), function)(*arguments, **options))
    except Unavailable as error:
        raise Unreachable(error.message, hint="kubectl get taskflowclusters must work here too") from None
    except TaskFlowError as error:
        raise BadInput(error.message) from None
