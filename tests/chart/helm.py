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
        text = self.run("template", "taskflow", str(self.chart), *options, values=values)
        return [body for body in yaml.safe_load_all(text) if body]


def require_helm() -> None:
    """End the tests with what is missing, where helm is."""
    try:
        subprocess.run(["helm", "version"], check=True, capture_output=True, timeout=30)
    except FileNotFoundError:
        pytest.exit("helm is missing: install Helm 3.14 or later, or put what `hack/kube/kube build` prints on PATH", 2)


def pods(bodies: list[Body]) -> Iterator[tuple[str, Body]]:
    """Yield name and spec of every pod and pod template."""
    for body in bodies:
        name = f"{body['kind']}/{body['metadata']['name']}"
        if body["kind"] == "Pod":
            yield name, body["spec"]
        elif body["kind"] in {"Deployment", "Job"}:
            yield name, body["spec"]["template"]["spec"]
