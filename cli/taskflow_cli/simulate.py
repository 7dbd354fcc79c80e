"""`taskflow simulate`: the operator's scaling function over a load, beside models of KEDA and of a plain HPA."""

import csv
import importlib
import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taskflow_cli.failures import BadInput
from taskflow_cli.options import RUN_PANEL, AsJson, examples
from taskflow_cli.output import print_json, say

if TYPE_CHECKING:  # pydantic takes a while, and --help does without
    from taskflow_core.scaling_policy import ScalingPolicy
    from taskflow_core.simulation import Arrival, Outcome

WIDTH = 72
BARS = " ▁▂▃▄▅▆▇█"
MAX_TASKS = 1_000_000


def add_commands(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command(
        rich_help_panel=RUN_PANEL,
        epilog=examples(
            "taskflow simulate --shape bimodal --against keda,hpa",
            "taskflow simulate --load load.csv --policy policy.yaml --slots 8 --json",
        ),
    )(simulate)


def simulate(
    load: Annotated[
        Path | None,
        typer.Option(
            help="CSV with the columns at_s and run_s, and optionally count: tasks in seconds from the start."
        ),
    ] = None,
    shape: Annotated[str, typer.Option(help="A made-up load instead: burst, wave, steady, bimodal, long.")] = "burst",
    policy: Annotated[
        Path | None,
        typer.Option(help="YAML or JSON: a pool's autoscaling. Default: its defaults, from zero."),
    ] = None,
    against: Annotated[str, typer.Option(help="Others beside it: keda, hpa, or both with a comma.")] = "keda,hpa",
    slots: Annotated[int, typer.Option(min=1, max=1000, help="Tasks at a time in one pod.")] = 4,
    pod_start: Annotated[int, typer.Option(min=0, max=3600, help="Seconds until a new pod works.")] = 15,
    seed: Annotated[int, typer.Option(help="Of a made-up load.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Show how a pool would follow a load: depth, wait and replicas over time, and what it costs.

    The same function decides that the operator runs. Nothing is contacted; the clock is simulated.
    """
    from taskflow_core import simulation

    rules, names = read_policy(policy), contenders(against)
    if shape not in simulation.SHAPES:
        raise BadInput(f"--shape {shape}: there is no such load", hint=f"it may be: {', '.join(simulation.SHAPES)}")
    tasks = simulation.synthetic(shape, seed=seed) if load is None else read_load(load)
    outcomes = [
        simulation.simulate(simulation.SCALERS[name](rules), tasks, policy=rules, slots=slots, start_s=pod_start)
        for name in names
    ]
    if as_json:
        print_json([summary(outcome) for outcome in outcomes])
        return
    for outcome in outcomes:
        draw(outcome)
    print_table(outcomes)


def contenders(against: str) -> list[str]:
    """Return whom to simulate: the scaling function and the others that the option names.

    Raises:
        BadInput: nobody knows one of them.
    """
    from taskflow_core.simulation import SCALERS

    names = dict.fromkeys(["taskflow", *(name for name in against.split(",") if name)])
    unknown = [name for name in names if name not in SCALERS]
    if unknown:
        raise BadInput(f"--against {unknown[0]}: nobody knows that one", hint="it may hold: keda, hpa")
    return list(names)


def read_policy(path: Path | None) -> "ScalingPolicy":
    """Return the policy of the file; without one the defaults, from zero replicas.

    Raises:
        BadInput: the file cannot be read, or a field is wrong; names it.
    """
    from pydantic import ValidationError

    from taskflow_core.scaling_policy import ScalingPolicy

    if path is None:
        return ScalingPolicy(min_replicas=0)
    try:
        return ScalingPolicy.model_validate(_parse(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"])) or "autoscaling"
        raise BadInput(f"{path}: {field}: {first['msg']}") from None


def _parse(path: Path) -> Any:
    try:
        text = path.read_text()
        if path.suffix == ".json":
            return json.loads(text)
        return importlib.import_module("yaml").safe_load(text)
    except ModuleNotFoundError:
        raise BadInput(f"{path}: YAML needs another package", hint="write JSON, or: pip install pyyaml") from None
    except Exception as error:  # noqa: BLE001 - each parser has errors of its own
        raise BadInput(f"{path} cannot be read", details=[str(error).partition("\n")[0]]) from None


def read_load(path: Path) -> "list[Arrival]":
    """Return the tasks of a CSV file.

    Raises:
        BadInput: the file or a row cannot be read; names the line.
    """
    tasks: list[Arrival] = []
    number = 1
    try:
        with path.open(newline="") as file:
            for number, row in enumerate(csv.DictReader(file), start=2):
                tasks += itertools.repeat(_arrival(row), int(row.get("count") or 1))
                if len(tasks) > MAX_TASKS:
                    raise BadInput(f"{path}, line {number}: more than {MAX_TASKS:,} tasks")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read", details=[str(error)]) from None
    except (KeyError, ValueError, TypeError) as error:
        hint = "each line needs at_s and run_s, both numbers from 0, and may hold count"
        raise BadInput(f"{path}, line {number}: {error}", hint=hint) from None
    return tasks


def _arrival(row: dict[str, str]) -> "Arrival":
    from taskflow_core.simulation import Arrival

    at_s, run_s = float(row["at_s"]), float(row["run_s"])
    if not (0 <= at_s <= 86_400 and 0 <= run_s <= 86_400):
        raise ValueError("a time is not between 0 and 86400")
    return Arrival(at_s, run_s)


def draw(outcome: "Outcome") -> None:
    """Print depth, age and replicas over time as three rows of blocks."""
    last = outcome.points[-1].now_s
    say(f"{outcome.name}, {last / 60:.0f} minutes, {outcome.tasks:,} tasks")
    say(_row("waiting", [point.waiting for point in outcome.points]))
    say(_row("oldest s", [point.oldest_s for point in outcome.points]))
    say(_row("replicas", [point.replicas for point in outcome.points]))
    say("")


def _row(name: str, values: Sequence[float]) -> str:
    size = -(-len(values) // WIDTH)
    peaks = [max(values[start : start + size]) for start in range(0, len(values), size)]
    most = max(peaks)
    bars = "".join(BARS[0 if not peak else 1 + int(7 * peak / most)] for peak in peaks)
    return f"  {name:<9}{bars}  max {most:,.0f}"


def print_table(outcomes: Iterable["Outcome"]) -> None:
    """Print what each run cost."""
    say(f"{'':<10}{'wait p50':>10}{'wait p95':>10}{'pod-hours':>11}{'killed':>8}{'unfinished':>12}{'changes':>9}")
    for outcome in outcomes:
        say(
            f"{outcome.name:<10}{outcome.wait_p50_s:>8.1f} s{outcome.wait_p95_s:>8.1f} s{outcome.pod_hours:>11.2f}"
            f"{outcome.killed:>8}{outcome.unfinished:>12}{outcome.changes:>9}"
        )


def summary(outcome: "Outcome") -> dict[str, Any]:
    """Return what a run cost, for machines."""
    return {
        "scaler": outcome.name,
        "tasks": outcome.tasks,
        "wait_p50_s": round(outcome.wait_p50_s, 3),
        "wait_p95_s": round(outcome.wait_p95_s, 3),
        "pod_hours": round(outcome.pod_hours, 3),
        "killed": outcome.killed,
        "unfinished": outcome.unfinished,
        "changes": outcome.changes,
        "max_replicas": max(point.replicas for point in outcome.points),
    }
