"""A real Kubernetes API server and etcd, without a controller: tests write what controllers and kubelets would."""

import json
import os
import secrets
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trustme

from taskflow_cli.embedded.ports import free_port
from waiting import eventually

PROGRAMS = ("etcd", "kube-apiserver", "kubectl")
ADMIN = "admin"


@dataclass
class ApiServer:
    """The API server's address, its CA, and a token for each user that was announced at its start."""

    url: str
    ca: Path
    tokens: dict[str, str]
    programs: Path
    folder: Path

    def kubeconfig(self, user: str = ADMIN) -> Path:
        """Write a kubeconfig of that user and return its path."""
        file = self.folder / f"{user}.kubeconfig"
        cluster = {"server": self.url, "certificate-authority": str(self.ca)}
        file.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "test",
                    "clusters": [{"name": "test", "cluster": cluster}],
                    "users": [{"name": user, "user": {"token": self.tokens[user]}}],
                    "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
                }
            )
        )
        return file

    def client(self, user: str = ADMIN) -> httpx2.Client:
        """Return an HTTP client of that user."""
        headers = {"Authorization": f"Bearer {self.tokens[user]}"}
        return httpx2.Client(
            base_url=self.url, headers=headers, verify=ssl.create_default_context(cafile=str(self.ca)), timeout=20
        )

    def audited(self, user: str) -> list[dict[str, Any]]:
        """Return what the API server wrote down about a user's requests."""
        lines = (self.folder / "audit.log").read_text().splitlines()
        entries = [json.loads(line) for line in lines if f'"username":"{user}"' in line]
        return [entry for entry in entries if "objectRef" in entry]

    def kubectl(self, *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run kubectl as the administrator."""
        command = [str(self.programs / "kubectl"), "--kubeconfig", str(self.kubeconfig()), *arguments]
        return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)


def find_programs() -> Path:
    """Return the folder of the programs, or end the tests with what is missing."""
    folder = os.environ.get("KUBEBUILDER_ASSETS")
    missing = [name for name in PROGRAMS if not folder or not (Path(folder) / name).exists()]
    if folder is None or missing:
        where = f"in {folder}" if folder else "because KUBEBUILDER_ASSETS is not set"
        pytest.exit(
            f"tests/cluster needs {', '.join(missing)}, missing {where}: set KUBEBUILDER_ASSETS to a folder that holds "
            "them (setup-envtest use -p path prints one)",
            returncode=2,
        )
    return Path(folder)


@contextmanager
def running_api_server(folder: Path, users: dict[str, str]) -> Iterator[ApiServer]:
    """Run etcd and an API server with RBAC until the block ends; `users` has the group of each user."""
    programs = find_programs()
    tokens = {user: secrets.token_urlsafe(24) for user in users}
    (folder / "tokens.csv").write_text(
        "".join(f'{tokens[user]},{user},{user},"{group}"\n' for user, group in users.items())
    )
    policy = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"]}
    (folder / "audit-policy.json").write_text(json.dumps(policy | {"rules": [{"level": "Metadata"}]}))
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1", "localhost", "10.0.0.1")
    authority.cert_pem.write_to_path(str(folder / "ca.crt"))
    certificate.private_key_pem.write_to_path(str(folder / "server.key"))
    certificate.cert_chain_pems[0].write_to_path(str(folder / "server.crt"))
    etcd, peer, port = free_port(), free_port(), free_port()
    etcd_url = f"http://127.0.0.1:{etcd}"
    with ExitStack() as stack:
        stack.enter_context(
            _process(
                folder / "etcd.log",
                programs / "etcd",
                f"--data-dir={folder / 'etcd'}",
                "--unsafe-no-fsync",
                f"--listen-client-urls={etcd_url}",
                f"--advertise-client-urls={etcd_url}",
                f"--listen-peer-urls=http://127.0.0.1:{peer}",
                "--log-level=warn",
            )
        )
        server = ApiServer(f"https://127.0.0.1:{port}", folder / "ca.crt", tokens, programs, folder)
        process = stack.enter_context(_process(folder / "apiserver.log", *_command(programs, folder, etcd_url, port)))
        with server.client() as client:
            eventually(lambda: process.poll() is not None or _is_ready(client), timeout=120)
        assert process.poll() is None, (folder / "apiserver.log").read_text()[-3000:]
        yield server


def _command(programs: Path, folder: Path, etcd_url: str, port: int) -> list[str | Path]:
    return [
        programs / "kube-apiserver",
        f"--etcd-servers={etcd_url}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={port}",
        "--service-cluster-ip-range=10.0.0.0/16",
        f"--tls-cert-file={folder / 'server.crt'}",
        f"--tls-private-key-file={folder / 'server.key'}",
        f"--token-auth-file={folder / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        "--disable-admission-plugins=ServiceAccount",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={folder / 'server.key'}",
        f"--service-account-signing-key-file={folder / 'server.key'}",
        "--profiling=false",
        f"--audit-policy-file={folder / 'audit-policy.json'}",
        f"--audit-log-path={folder / 'audit.log'}",
    ]


def _is_ready(client: httpx2.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx2.TransportError:
        return False


@contextmanager
def _process(log: Path, *command: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen([str(part) for part in command], stdout=output, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=10)
