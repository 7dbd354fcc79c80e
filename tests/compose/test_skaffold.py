"""skaffold.yaml, held against the schema that skaffold publishes in its Go module, and against the chart."""

import json
import os
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from compose.stack import ROOT

MODULE = "github.com/GoogleContainerTools/skaffold/v2@v2.16.1"
DOWNLOAD_S = 300


@cache
def config() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "skaffold.yaml").read_text())
    return loaded


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the schema of the version that skaffold.yaml names."""
    version = config()["apiVersion"].removeprefix("skaffold/")
    folder = tmp_path_factory.mktemp("module")
    (folder / "go.mod").write_text("module schema\n")
    command = ["go", "mod", "download", "-json", MODULE]
    env = {**os.environ, "GOFLAGS": "-mod=mod"}
    try:
        done = subprocess.run(
            command, cwd=folder, env=env, capture_output=True, text=True, timeout=DOWNLOAD_S, check=True
        )
    except FileNotFoundError:
        pytest.exit("go is missing: the schema of skaffold.yaml is in skaffold's Go module", 2)
    file = Path(json.loads(done.stdout)["Dir"], "docs-v2", "content", "en", "schemas", f"{version}.json")
    loaded: dict[str, Any] = json.loads(file.read_text())
    return loaded


def test_it_is_what_skaffold_reads(schema: dict[str, Any]) -> None:
    jsonschema_rs.validate(schema, config())
    with pytest.raises(jsonschema_rs.ValidationError, match=r"Additional properties|not valid"):
        jsonschema_rs.validate(schema, config() | {"deploy": {"helm": {"releases": [{"name": "x", "chart": "y"}]}}})


def test_it_builds_the_targets_of_the_dockerfile() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    artifacts = {artifact["image"]: artifact["docker"]["target"] for artifact in config()["build"]["artifacts"]}
    assert artifacts == {"taskflow/platform": "platform", "taskflow/operator": "operator"}
    assert all(f" AS {target}\n" in dockerfile for target in artifacts.values())


def test_it_sets_values_that_the_chart_has() -> None:
    (release,) = config()["deploy"]["helm"]["releases"]
    values = yaml.safe_load((ROOT / release["chartPath"] / "values.yaml").read_text())
    for path in [*release["setValues"], *release["setValueTemplates"]]:
        found = values
        for name in path.split("."):
            assert name in found, path
            found = found[name]
