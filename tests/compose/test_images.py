"""What the images are, whoever runs them."""

import json
import secrets
from typing import Any

import pytest

from compose.stack import TAG, docker, images, logs

PLATFORM = images()["TASKFLOW_IMAGE"]
OPERATOR = f"taskflow/operator:{TAG}"
# A way to build, to install or to get at more: none of it may be in an image's own environment.
TOOLS = """
import json, pathlib, shutil, sys
site = [path for path in map(pathlib.Path, sys.path) if path.name == "site-packages" and str(path).startswith("/opt")]
print(json.dumps({
    "tools": [name for name in ("gcc", "cc", "make", "git", "curl") if shutil.which(name)],
    "installers": [name for path in site for name in ("pip", "setuptools", "wheel", "uv") if (path / name).exists()],
    "caches": [str(path) for home in ("/root", "/tmp") for path in pathlib.Path(home, ".cache").glob("*")],
    "uncompiled": [str(file) for path in site for file in path.rglob("taskflow_*/**/__init__.py")
                   if not list((file.parent / "__pycache__").glob("__init__.*.pyc"))],
    "packages": sorted(file.name for path in site for file in path.glob("taskflow_*") if file.suffix != ".dist-info"),
}))
"""


@pytest.fixture(autouse=True)
def started(engine: None) -> None:
    """Need an engine."""


def run(image: str, *command: str, user: str = "65532:65532") -> str:
    """Run a command in the image, locked as docker-compose.yml locks it."""
    locks = ["--read-only", "--tmpfs=/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true"]
    return docker("run", "--rm", "--network", "none", "--user", user, *locks, image, *command)


@pytest.mark.parametrize("image", [PLATFORM, OPERATOR])
def test_an_image_says_what_it_is_and_how_it_runs(image: str) -> None:
    config: dict[str, Any] = json.loads(docker("image", "inspect", image))[0]["Config"]
    user, _, group = config["User"].partition(":")
    assert user.isdecimal()
    assert int(user) > 0
    assert group == user
    assert config["Cmd"][0] == "taskflow", "not the exec form: no signal would arrive"
    assert config["Entrypoint"] in (None, [])
    assert config["Healthcheck"]["Test"][0] == "CMD"
    labels = config["Labels"]
    for name in ("title", "description", "licenses", "version", "revision", "base.name"):
        assert labels[f"org.opencontainers.image.{name}"] not in {"", None}


@pytest.mark.parametrize("image", [PLATFORM, OPERATOR])
def test_an_image_runs_locked_and_holds_no_tools(image: str) -> None:
    assert run(image, "taskflow", "--version").startswith("taskflow ")
    found = json.loads(run(image, "python", "-c", TOOLS, user="0:0"))
    packages = found.pop("packages")
    assert {"taskflow_core", "taskflow_api", "taskflow_worker", "taskflow_cli"} <= set(packages)
    assert found == {"tools": [], "installers": [], "caches": [], "uncompiled": []}


def test_the_platform_knows_no_kubernetes_and_the_operator_does() -> None:
    program = "from importlib.util import find_spec; print(bool(find_spec('kubernetes')))"
    assert run(PLATFORM, "python", "-c", program).strip() == "False"
    assert run(OPERATOR, "python", "-c", program).strip() == "True"


def test_a_process_without_its_settings_ends_with_a_sentence_for_each() -> None:
    name = f"taskflow-test-{secrets.token_hex(3)}"
    docker("run", "--detach", "--network", "none", "--name", name, PLATFORM)
    try:
        assert docker("wait", name).strip() == "2"
        said = logs(name)
    finally:
        docker("rm", "--force", name)
    assert "TASKFLOW_DATABASE_URL is missing" in said
