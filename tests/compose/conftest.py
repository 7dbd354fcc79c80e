"""Fixtures: one stack of docker compose a session, on stand-ins for the images that are not ours."""

import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from compose.stack import Refused, Stack, docker, images, make_secrets
from taskflow_client.sync import TaskFlow


@pytest.fixture(scope="session")
def engine() -> None:
    """Refuse to start where there is no Docker engine with compose, or an image is missing."""
    try:
        docker("compose", "version")
        docker("info", "--format", "{{.ServerVersion}}")
    except FileNotFoundError:
        pytest.exit("docker is missing: install Docker with its compose plugin, or run hack/kube/engine up", 2)
    except (Refused, subprocess.TimeoutExpired) as error:
        pytest.exit(f"no Docker engine with compose answers: start it, or run hack/kube/engine up\n{error}", 2)
    try:
        docker("image", "inspect", *images().values())
    except Refused as error:
        pytest.exit(f"an image is missing: run STAND_INS=1 make image\n{error}", 2)


@pytest.fixture(scope="session")
def env_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a .env as `make env` writes it."""
    folder = tmp_path_factory.mktemp("project")
    make_secrets(folder)
    return folder / ".env"


@pytest.fixture(scope="session")
def stack(engine: None, env_file: Path) -> Iterator[Stack]:
    """Bring a whole platform up, as the README says, and take it away at the end."""
    stack = Stack(f"taskflow-test-{secrets.token_hex(3)}", env_file)
    try:
        stack.up()
        yield stack
    finally:
        stack.down()


@pytest.fixture
def user(stack: Stack) -> Iterator[TaskFlow]:
    """Return a client of the API with a new account."""
    email, password = f"compose-{secrets.token_hex(4)}@example.com", secrets.token_urlsafe(16)
    with TaskFlow(stack.url, trust_env=False) as client:
        client.account.register(email, password)
        client.account.login(email, password)
        yield client
