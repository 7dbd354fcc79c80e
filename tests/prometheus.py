"""The real Prometheus and its promtool, as installed."""

import os
import shutil
from pathlib import Path

import pytest

RULES = Path(__file__).parents[1] / "charts/taskflow/files/monitoring/rules.yaml"


def program(name: str) -> str:
    """Return the path of `prometheus` or `promtool`, from PATH or the folder PROMETHEUS_BIN."""
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PROMETHEUS_BIN", ""), os.environ["PATH"]]))
    if found is None:
        pytest.fail(f"{name} is missing: apt-get install prometheus, or set PROMETHEUS_BIN to a folder that has it")
    return found
