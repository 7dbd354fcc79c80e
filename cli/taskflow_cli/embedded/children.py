"""The platform's children in the order they start, each with the environment it needs and nothing more."""

import http.client
import os
import signal
import smtplib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psycopg

from taskflow_cli.embedded import postgres, valkey
from taskflow_cli.embedded.keeper import Child
from taskflow_cli.embedded.ports import LOCALHOST
from taskflow_cli.embedded.process import Launch

DATABASE = "taskflow"
# What a Python program needs from the outside: where programs, its home and scratch space are, language, proxies.
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "PYTHONPATH", "SSL_CERT_FILE", "HTTPS_PROXY", "NO_PROXY")
PREFIX = "TASKFLOW_"
OURS = ("URL", "HOST", "PORT", "SECRET", "PASSWORD", "TOKEN", "KEY")  # endings of what this platform decides itself
MACHINE = f"{LOCALHOST},localhost"  # what SYNC and webhooks may call beside the Internet
IS_CONNECTED = "SELECT 1 FROM pg_stat_activity WHERE application_name LIKE %s AND datname = current_database()"
IS_REGISTERED = "SELECT 1 FROM workers WHERE heartbeat_at >= %s"


@dataclass(frozen=True)
class Site:
    """Where everything of one run is: folders, ports, addresses, secrets, and what the user asked for."""

    folder: Path
    host: str
    api_port: int
    smtp_port: int
    worker_port: int
    scheduler_port: int
    database_url: str
    redis_url: str
    jwt_secret: str
    webhook_key: str
    slots: int
    queues: str
    began: datetime

    @property
    def api_url(self) -> str:
        """Return the address for a client on this machine."""
        host = {"0.0.0.0": LOCALHOST, "::": "[::1]"}.get(self.host, self.host)  # noqa: S104 compared, not bound
        return f"http://{host}:{self.api_port}"

    @property
    def metrics(self) -> dict[str, str]:
        """Return where each process tells its metrics, as host:port."""
        ports = {"worker": self.worker_port, "scheduler": self.scheduler_port}
        own = {name: f"{LOCALHOST}:{port}" for name, port in ports.items()}
        return {"api": self.api_url.removeprefix("http://"), **own}

    @property
    def mail_dir(self) -> Path:
        """Return the folder of caught mail."""
        return self.folder / "mail"


def database_child(programs: postgres.Programs, data: Path, port: int, address: str) -> Child:
    """Return PostgreSQL. A hurried stop is SIGQUIT: it recovers at the next start, and no process of it stays."""
    return Child(
        name="postgres",
        launch=postgres.launch(programs, data, port),
        is_ready=lambda: postgres.is_ready(address),
        stop_signal=signal.SIGINT,
        hurry_signal=signal.SIGQUIT,
        grace_s=30,
    )


def redis_child(program: Path, folder: Path, address: str) -> Child:
    """Return Valkey."""
    return Child(name="valkey", launch=valkey.launch(program, folder), is_ready=lambda: valkey.is_ready(address))


def app_children(site: Site) -> Sequence[Child]:
    """Return TaskFlow's own processes: mail catcher, API, scheduler, worker."""
    return [mail_child(site), api_child(site), scheduler_child(site), worker_child(site)]


def mail_child(site: Site) -> Child:
    """Return the mail catcher."""
    flags = ("--port", str(site.smtp_port), "--dir", str(site.mail_dir))
    return _python_child(
        site, "mail", "taskflow_cli.embedded.mailcatcher", {}, flags, is_ready=lambda: _greets(site.smtp_port)
    )


def api_child(site: Site) -> Child:
    """Return the API; it alone knows the key that signs tokens."""
    env = {
        **_stores(site),
        **_webhooks(site),
        "TASKFLOW_JWT_SECRET": site.jwt_secret,
        "TASKFLOW_WEBHOOK_ALLOW_HTTP": "true",
        "TASKFLOW_API_HOST": site.host,
        "TASKFLOW_API_PORT": str(site.api_port),
    }
    return _python_child(site, "api", "taskflow_api", env, is_ready=lambda: _is_up(site))


def scheduler_child(site: Site) -> Child:
    """Return the scheduler."""
    return _python_child(
        site,
        "scheduler",
        "taskflow_worker.scheduler",
        {**_stores(site), **_webhooks(site), **_probes(site.scheduler_port)},
        is_ready=lambda: _finds(site, IS_CONNECTED, "taskflow-scheduler%"),
    )


def worker_child(site: Site) -> Child:
    """Return the worker; told to stop twice it gives its tasks back at once."""
    env = {
        **_stores(site),
        **_probes(site.worker_port),
        "TASKFLOW_SLOTS": str(site.slots),
        "TASKFLOW_QUEUES": site.queues,
        "TASKFLOW_SMTP_URL": f"smtp://{LOCALHOST}:{site.smtp_port}",
        "TASKFLOW_FETCH_ALLOW_HOSTS": MACHINE,
    }
    return _python_child(
        site,
        "worker",
        "taskflow_worker",
        env,
        is_ready=lambda: _finds(site, IS_REGISTERED, site.began),
        hurry_signal=signal.SIGTERM,
        grace_s=35,
    )


def tunables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the user's own `TASKFLOW_*` settings that hold no address and no secret."""
    mine = {name: value for name, value in environ.items() if name.startswith(PREFIX)}
    return {name: value for name, value in mine.items() if not name.endswith(OURS)}


def _python_child(
    site: Site,
    name: str,
    module: str,
    env: Mapping[str, str],
    arguments: Sequence[str] = (),
    *,
    is_ready: Callable[[], bool],
    hurry_signal: signal.Signals = signal.SIGKILL,
    grace_s: float = 10,
) -> Child:
    inherited = {key: os.environ[key] for key in INHERITED if key in os.environ}
    own = {"PYTHONUNBUFFERED": "1", "TASKFLOW_LOG_FORMAT": "console"}
    launch = Launch(
        command=(sys.executable, "-m", module, *arguments),
        env={**inherited, **tunables(os.environ), **own, **env},
        cwd=site.folder,
    )
    return Child(name=name, launch=launch, is_ready=is_ready, hurry_signal=hurry_signal, grace_s=grace_s)


def _stores(site: Site) -> dict[str, str]:
    return {"TASKFLOW_DATABASE_URL": site.database_url, "TASKFLOW_REDIS_URL": site.redis_url}


def _webhooks(site: Site) -> dict[str, str]:
    return {"TASKFLOW_WEBHOOK_KEY": site.webhook_key, "TASKFLOW_FETCH_ALLOW_HOSTS": MACHINE}


def _probes(port: int) -> dict[str, str]:
    return {"TASKFLOW_PROBE_HOST": LOCALHOST, "TASKFLOW_PROBE_PORT": str(port)}


def _greets(port: int) -> bool:
    try:
        with smtplib.SMTP(LOCALHOST, port, local_hostname="localhost", timeout=2) as client:
            return client.noop()[0] == 250
    except OSError:
        return False


def _is_up(site: Site) -> bool:
    connection = http.client.HTTPConnection(site.api_url.removeprefix("http://"), timeout=2)
    try:
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _finds(site: Site, query: str, value: object) -> bool:
    try:
        with psycopg.connect(site.database_url, connect_timeout=2) as connection:
            return connection.execute(query, [value]).fetchone() is not None
    except psycopg.OperationalError:
        return False
