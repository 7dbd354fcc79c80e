"""helm, as a user would type it, with a deadline on each call."""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

CHART = Path(__file__).parents[2] / "charts" / "taskflow"
CALL_S = 60
Values = dict[str, Any]
Body = dict[str, Any]


class Refused(Exception):
    """helm left with an error; the text is what it said."""


@dataclass(frozen=True)
class Helm:
    """One namespace, as helm sees it; `env` names the cluster where it is not KUBECONFIG's."""

    namespace: str
    chart: Path = CHART
    env: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: str, values: Values | None = None, timeout: float = CALL_S) -> str:
        """Run helm, with values where some are given, and return what it printed.

        Raises:
            Refused: it left with an error.
        """
        given = [] if values is None else ["--values", "-"]
        done: subprocess.CompletedProcess[str] = subprocess.run(
            ["helm", "--namespace", self.namespace, *arguments, *given],
            input=yaml.safe_dump(values or {}),
            env={**os.environ, **self.env},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            raise Refused(done.stderr + done.stdout)
        return done.stdout

    def template(self, values: Values, *options: str) -> list[Body]:
        """Return the objects of a release `taskflow`, hooks and tests too."""
        return parsed(self.run("template", "taskflow", str(self.chart), *options, values=values))


def parsed(text: str) -> list[Body]:
    """Return the objects of a manifest; libyaml reads the large ones in a tenth of the time."""
    return [body for body in yaml.load_all(text, Loader=yaml.CSafeLoader) if body]


def require_helm() -> None:
    """End the tests with what is missing, where there is no Helm 4: the words of 3 are others, and it shows no logs."""
    advice = "install Helm 4, or put the folder that `hack/kube/kube build` prints on PATH"
    try:
        version = subprocess.check_output(["helm", "version", "--short"], text=True, timeout=30).strip()
    except FileNotFoundError:
        pytest.exit(f"helm is missing: {advice}", 2)
    if not version.startswith("v4"):
        pytest.exit(f"helm is {version}: {advice}", 2)


def pods(bodies: list[Body]) -> Iterator[tuple[str, Body]]:
    """Yield name and spec of every pod and pod template."""
    for body in bodies:
        name = f"{body['kind']}/{body['metadata']['name']}"
        if body["kind"] == "Pod":
            yield name, body["spec"]
        elif body["kind"] in {"Deployment", "Job"}:
            yield name, body["spec"]["template"]["spec"]
