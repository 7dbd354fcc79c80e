"""Settings from the environment (`TASKFLOW_*`), validated at start: all mistakes at once, a sentence each.

Every process reads only what it needs: a worker never sees the signing key of tokens. A variable that is not set, or
empty, is looked for in a file of its name (any case) in /run/secrets/taskflow, or in TASKFLOW_SECRETS_DIR if given.
"""

import os
import re
import sys
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Protocol, TypeVar, cast
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from taskflow_core.addresses import AllowList

PREFIX = "TASKFLOW_"
SECRETS_DIR = "/run/secrets/taskflow"
MIN_SECRET_BYTES = 32
MAX_QUEUES = 32
BCRYPT_ROUNDS = 12
QUEUE_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
YEAR_S = 366 * 86_400


class BadSettings(Exception):
    """The environment does not hold what the process needs; `problems` has one sentence for each variable."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def _database_url(secret: SecretStr) -> SecretStr:
    scheme, _, rest = secret.get_secret_value().partition("://")
    if scheme not in {"postgresql", "postgres", "postgresql+psycopg"} or not _names_a_database(rest):
        raise ValueError("must look like postgresql://user:password@host:5432/database (special characters as %40)")
    return SecretStr("postgresql+psycopg://" + rest)


def _names_a_database(rest: str) -> bool:
    """Whether SQLAlchemy, which connects, and libpq, which is handed the plain URL, read it and read the same."""
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url("postgresql+psycopg://" + rest)
        connect = url.get_dialect()().create_connect_args(url)[1]
        libpq = conninfo_to_dict("postgresql://" + rest)
    except (ArgumentError, ProgrammingError, ValueError):
        return False
    alike = all(str(connect.get(key)) == str(libpq.get(key)) for key in ("user", "password", "host", "port", "dbname"))
    ports = [port for port in str(libpq.get("port") or "").split(",") if port]
    return alike and "dbname" in libpq and "@" not in str(libpq.get("host")) and all(map(_is_port, ports))


def _is_port(text: str) -> bool:
    return text.isdecimal() and 0 < int(text) < 65_536


def _redis_url(secret: SecretStr) -> SecretStr:
    if not _names_a_redis(secret.get_secret_value()):
        raise ValueError("must look like redis://user:password@host:6379/0 (special characters as %40)")
    return secret


def _names_a_redis(url: str) -> bool:
    """Whether the client reads it as meant: it takes a database that is no number for number 0, without a word."""
    try:
        parts = urlsplit(url)
        if parts.scheme == "unix":
            return parts.path.strip("/") != ""
        served = parts.hostname is not None and parts.port != 0
    except ValueError:
        return False
    return parts.scheme in {"redis", "rediss"} and served and re.fullmatch(r"/?[0-9]{0,4}", parts.path) is not None


def _long_secret(secret: SecretStr) -> SecretStr:
    if len(secret.get_secret_value().encode()) < MIN_SECRET_BYTES:
        raise ValueError(f"must hold at least {MIN_SECRET_BYTES} bytes; make one with: openssl rand -base64 48")
    return secret


def _queue_names(value: str) -> str:
    names = value.split(",")
    if len(set(names)) != len(names) or len(names) > MAX_QUEUES or not all(map(QUEUE_NAME.fullmatch, names)):
        raise ValueError(
            f"must hold 1 to {MAX_QUEUES} different names separated by commas, without spaces, each of at most 64 "
            "characters a-z 0-9 _ . - and starting with a letter or digit, such as high,default,low"
        )
    return value


def _namespace(name: str) -> str:
    if not DNS_LABEL.fullmatch(name):
        raise ValueError("must hold a name of at most 63 characters a-z 0-9 -, starting and ending without -")
    return name


def _namespaces(value: str) -> str:
    names = value.split(",") if value else []
    if not all(map(DNS_LABEL.fullmatch, names)):
        raise ValueError("must hold names of namespaces separated by commas, without spaces, such as team-a,team-b")
    return value


def _allow_list(text: str) -> str:
    AllowList.parse(text)
    return text


def _folder(path: Path) -> Path:
    if not path.is_dir() or not os.access(path, os.W_OK | os.X_OK):
        raise ValueError(f"{path} must be a folder that this process may write to")
    return path


DatabaseUrl = Annotated[SecretStr, AfterValidator(_database_url)]
RedisUrl = Annotated[SecretStr, AfterValidator(_redis_url)]
LongSecret = Annotated[SecretStr, AfterValidator(_long_secret)]
Days = Annotated[int, Field(ge=1, le=36_500)]
MaxPending = Annotated[int, Field(ge=1, le=1_000_000_000)]
QueueNames = Annotated[str, AfterValidator(_queue_names)]
AllowedHosts = Annotated[str, AfterValidator(_allow_list)]


class LogSettings(BaseSettings):
    """How settings are read, and what every process needs to log."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,  # compose files and charts write an optional variable as an empty one
        str_strip_whitespace=True,  # a secret made from a file often ends with a newline
        allow_inf_nan=False,
        hide_input_in_errors=True,
        frozen=True,
        extra="ignore",
    )

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"


class Settings(LogSettings):
    """What every process of a platform needs."""

    database_url: DatabaseUrl
    redis_url: RedisUrl
    database_pool_size: int = Field(default=10, ge=1, le=200)
    database_timeout_s: float = Field(default=10.0, gt=0, le=300)
    redis_timeout_s: float = Field(default=5.0, gt=0, le=60)


class WebhookSettings(Settings):
    """What the API and the scheduler need for webhooks: a worker never sees the key of their secrets."""

    webhook_key: LongSecret | None = None
    webhook_previous_key: LongSecret | None = None
    fetch_allow_hosts: AllowedHosts = ""


class ApiSettings(WebhookSettings):
    """What the API needs beside."""

    jwt_secret: LongSecret
    jwt_previous_secret: LongSecret | None = None
    jwt_issuer: str = Field(default="taskflow", min_length=1)
    jwt_audience: str = Field(default="taskflow-api", min_length=1)
    access_token_ttl_s: int = Field(default=900, ge=30, le=86_400)
    refresh_idle_ttl_s: int = Field(default=7 * 86_400, ge=60, le=YEAR_S)
    refresh_absolute_ttl_s: int = Field(default=30 * 86_400, ge=60, le=YEAR_S)
    api_host: str = "127.0.0.1"
    api_port: int = Field(default=8000, ge=0, le=65_535)
    trusted_proxies: str = ""
    max_body_bytes: int = Field(default=256 * 1024, ge=1024, le=16 * 1024 * 1024)
    max_batch_bytes: int = Field(default=8 * 1024 * 1024, ge=1024, le=64 * 1024 * 1024)
    max_pending_tasks: MaxPending = 100_000
    requests_per_minute: int = Field(default=60_000, ge=0, le=1_000_000_000)
    registrations_per_minute: int = Field(default=100, ge=0, le=1_000_000)
    max_connections: int = Field(default=2000, ge=1, le=100_000)
    header_timeout_s: float = Field(default=10.0, gt=0, le=300)
    body_timeout_s: float = Field(default=30.0, gt=0, le=300)
    access_cache_s: float = Field(default=5.0, ge=0, le=60)
    bcrypt_rounds: int = Field(default=BCRYPT_ROUNDS, ge=4, le=16)
    max_streams: int = Field(default=1000, ge=1, le=100_000)
    max_streams_per_user: int = Field(default=20, ge=1, le=100_000)
    webhook_allow_http: bool = False
    max_webhooks: int = Field(default=20, ge=1, le=1000)


class WorkerSettings(Settings):
    """What a worker needs beside."""

    queues: QueueNames = "high,default,low"
    max_running_per_owner: int | None = Field(default=None, ge=1)
    probe_host: str = ""
    probe_port: int = Field(default=0, ge=0, le=65_535)
    slots: int = Field(default=16, ge=1, le=1000)
    lease_s: float = Field(default=30.0, ge=1, le=3600)
    shutdown_grace_s: float = Field(default=30.0, ge=0, le=86_400)
    smtp_url: SecretStr | None = None
    mail_from: str = "taskflow@localhost"
    fetch_allow_hosts: AllowedHosts = ""


class SchedulerSettings(WebhookSettings):
    """What the scheduler needs beside."""

    probe_host: str = ""
    probe_port: int = Field(default=0, ge=0, le=65_535)
    sweep_interval_s: float = Field(default=1.0, ge=0.1, le=60)
    lease_sweep_interval_s: float = Field(default=5.0, ge=0.1, le=60)
    max_pending_tasks: MaxPending = 100_000
    retain_completed_days: Days = 30
    retain_failed_days: Days = 90
    retain_canceled_days: Days = 30
    retain_security_events_days: Days = 180
    archive_dir: Annotated[Path, AfterValidator(_folder)] | None = None
    retain_deliveries_days: Days = 30
    metrics_interval_s: float = Field(default=15.0, ge=0.1, le=300)
    webhook_concurrency: int = Field(default=32, ge=1, le=500)
    webhook_disable_after_s: int = Field(default=3 * 86_400, ge=60, le=YEAR_S)


class OperatorSettings(LogSettings):
    """What the Kubernetes operator needs; it never opens a database, and finds Redis in the clusters' Secrets."""

    watch_namespaces: Annotated[str, AfterValidator(_namespaces)] = ""
    operator_namespace: Annotated[str, AfterValidator(_namespace)] = "default"
    lease_name: Annotated[str, AfterValidator(_namespace)] = "taskflow-operator"
    probe_port: int = Field(default=8080, ge=0, le=65_535)
    refresh_s: float = Field(default=120.0, ge=1, le=3600)


S = TypeVar("S", bound=BaseSettings)


class Loader(Protocol):
    """A cached function; functools alone would lose the kind that it returns."""

    def __call__(self, kind: type[S], /) -> S:
        """Read settings of that kind from the environment, once.

        Raises:
            BadSettings: with a sentence for each variable that is missing or wrong.
        """

    def cache_clear(self) -> None:
        """Forget what was read."""


def _read(kind: type[S]) -> S:
    folder = _secrets_dir()
    try:
        return kind(_secrets_dir=folder)
    except ValidationError as error:
        raise BadSettings([_sentence(problem) for problem in error.errors()]) from None
    except SettingsError as error:
        cause = type(error.__cause__).__name__  # its text may quote the file
        raise BadSettings([f"{PREFIX}SECRETS_DIR is wrong: in {folder}, {error}: {cause}."]) from None


load = cast("Loader", cache(_read))


def _secrets_dir() -> str | None:
    named = os.environ.get(PREFIX + "SECRETS_DIR")
    if named and not Path(named).is_dir():
        raise BadSettings([f"{PREFIX}SECRETS_DIR is wrong: {named} is not a directory."])
    folder = named or SECRETS_DIR
    return folder if Path(folder).is_dir() else None


def _sentence(problem: ErrorDetails) -> str:
    name = PREFIX + "_".join(str(part) for part in problem["loc"]).upper()
    if problem["type"] == "missing":
        return f"{name} is missing: set it in the environment, or in the file {SECRETS_DIR}/{name.lower()}."
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"{name} is wrong: {message[0].lower()}{message[1:]}."


def load_or_exit(kind: type[S]) -> S:
    """Read settings of that kind, or print what is wrong to standard error and leave with status 2."""
    try:
        return load(kind)
    except BadSettings as error:
        sys.stderr.write("taskflow: the environment is not complete:\n")
        sys.stderr.writelines(f"  {problem}\n" for problem in error.problems)
        raise SystemExit(2) from None
