"""What the files around containers promise, without an engine."""

import re
import shutil
import stat
import subprocess
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from compose.stack import ROOT, make_secrets
from e2e.kube import require_cluster

DOCKERFILE = (ROOT / "Dockerfile").read_text()
MONITORING = ROOT / "hack" / "monitoring"


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


def secrets_of(folder: Path) -> dict[str, str]:
    lines = (folder / ".env").read_text().splitlines()
    return dict(line.split("=", maxsplit=1) for line in lines)


def test_make_env_makes_every_secret_that_compose_asks_for_and_closes_the_file(tmp_path: Path) -> None:
    make_secrets(tmp_path)
    secrets = secrets_of(tmp_path)
    asked = set(re.findall(r"\$\{(\w+):\?", (ROOT / "docker-compose.yml").read_text()))
    assert asked <= secrets.keys()
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{48}", secret) for secret in secrets.values()), "must fit into a URL"
    assert len(set(secrets.values())) == len(secrets)
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600


def test_make_env_keeps_what_is_there_and_adds_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("TASKFLOW_SLOTS=4\nPOSTGRES_PASSWORD=mine")
    assert "POSTGRES_PASSWORD" not in make_secrets(tmp_path)
    first = secrets_of(tmp_path)
    assert (first["TASKFLOW_SLOTS"], first["POSTGRES_PASSWORD"]) == ("4", "mine")
    assert "holds every secret" in make_secrets(tmp_path)
    assert secrets_of(tmp_path) == first


def test_images_carry_the_version_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"ARG VERSION={project['version']}\n" in DOCKERFILE


def test_images_install_nothing_that_no_hash_fixes() -> None:
    joined = DOCKERFILE.replace("\\\n", " ")
    installs = [part for line in joined.splitlines() if line.startswith("RUN") for part in line.split("&&")]
    installs = [part for part in installs if "pip install" in part or "$INSTALL" in part]
    assert len(installs) > 3
    assert [part for part in installs if "--require-hashes" not in part and "--no-index" not in part] == []


@pytest.mark.parametrize("service", sorted(compose()["services"]))
def test_a_service_is_bounded_and_its_image_can_be_replaced(service: str) -> None:
    config = compose()["services"][service]
    assert config["image"].startswith("${"), "machines that reach no registry need images of their own"
    assert config["logging"]["options"].keys() == {"max-size", "max-file"}
    assert all(port.startswith("127.0.0.1:") for port in config.get("ports", []))


def test_prometheus_looks_for_services_that_compose_runs() -> None:
    jobs = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"]
    services = compose()["services"]
    found = [name for job in jobs for config in job["dns_sd_configs"] for name in config["names"]]
    assert found == ["api", "worker", "scheduler"]
    assert all("metrics" in services[name]["networks"] for name in [*found, "prometheus"])


def test_grafana_finds_its_source_and_its_dashboards_where_compose_puts_them() -> None:
    grafana = compose()["services"]["grafana"]
    mounts = dict(volume.split(":")[1::-1] for volume in grafana["volumes"])
    assert (ROOT / mounts["/etc/grafana/provisioning"]).resolve() == MONITORING / "grafana"
    (source,) = yaml.safe_load((MONITORING / "grafana" / "datasources" / "prometheus.yaml").read_text())["datasources"]
    url = urlsplit(source["url"])
    assert (url.hostname, url.port, source["isDefault"]) == ("prometheus", 9090, True)
    (provider,) = yaml.safe_load((MONITORING / "grafana" / "dashboards" / "taskflow.yaml").read_text())["providers"]
    assert mounts[provider["options"]["path"]].endswith("monitoring/dashboards")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param([], "which command? hack/kind.sh up|load|down", id="without a command"),
        pytest.param(["up"], "kind is missing; install it", id="without kind"),
    ],
)
def test_kind_sh_refuses_with_words(tmp_path: Path, arguments: list[str], said: str) -> None:
    bash = shutil.which("bash")
    assert bash is not None
    done = subprocess.run(
        [bash, ROOT / "hack" / "kind.sh", *arguments],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert said in done.stderr


def test_the_tests_of_a_cluster_leave_the_users_own_context_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(pytest.exit.Exception, match="set KUBECONFIG, install kind"):
        require_cluster()
