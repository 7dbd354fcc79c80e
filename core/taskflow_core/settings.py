"""Settings from the environment (`TASKFLOW_*`), validated at start: all mistakes at once, a sentence each.

Every process reads only what it needs: a worker never sees the signing key of tokens.
"""

import sys
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from taskflow_core.addresses import AllowList

PREFIX = "TASKFLOW_"
MIN_SECRET_BYTES = 32


class BadSettings(Exception):
    """The environment does not hold what the process needs; `problems` has one sentence for each variable."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def _database_url(secret: SecretStr) -> SecretStr:
    url = secret.get_secret_value()
    scheme, _, rest = url.partition("://")
    if scheme not in {"postgresql", "postgres", "postgresql+psycopg"} or not _has_host_and_path(rest):
        raise ValueError("must look like postgresql://user:password@host:5432/database")
    return SecretStr("postgresql+psycopg://" + rest)


def _redis_url(secret: SecretStr) -> SecretStr:
    scheme, _, rest = secret.get_secret_value().partition("://")
    if scheme not in {"redis", "rediss", "unix"} or not rest:
        raise ValueError("must look like redis://user:password@host:6379/0")
    return secret


def _has_host_and_path(rest: str) -> bool:
    try:
        parts = urlsplit("//" + rest)
        return bool(parts.path.strip("/")) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def _long_secret(secret: SecretStr) -> SecretStr:
    if len(secret.get_secret_value().encode()) < MIN_SECRET_BYTES:
        raise ValueError(f"must hold at least {MIN_SECRET_BYTES} bytes; make one with: openssl rand -base64 48")
    return secret


def _allow_list(text: str) -> str:
    AllowList.parse(text)
    return text


DatabaseUrl = Annotated[SecretStr, AfterValidator(_database_url)]
RedisUrl = Annotated[SecretStr, AfterValidator(_redis_url)]
LongSecret = Annotated[SecretStr, AfterValidator(_long_secret)]


class Settings(BaseSettings):
    """What every process needs."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    database_url: DatabaseUrl
    redis_url: RedisUrl
    database_pool_size: int = Field(default=10, ge=1, le=200)
    database_timeout_s: float = Field(default=10.0, gt=0, le=300)
    redis_timeout_s: float = Field(default=5.0, gt=0, le=60)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"


class ApiSettings(Settings):
    """What the API needs beside."""

    jwt_secret: LongSecret
    jwt_previous_secret: LongSecret | None = None
    jwt_issuer: str = "taskflow"
    jwt_audience: str = "taskflow-api"
    access_token_ttl_s: int = Field(default=900, ge=30, le=86_400)
    refresh_idle_ttl_s: int = Field(default=7 * 86_400, ge=60)
    refresh_absolute_ttl_s: int = Field(default=30 * 86_400, ge=60)
    api_host: str = "127.0.0.1"
    api_port: int = Field(default=8000, ge=0, le=65_535)
    trusted_proxies: str = ""
    max_body_bytes: int = Field(default=256 * 1024, ge=1024, le=16 * 1024 * 1024)
    max_pending_tasks: int = Field(default=100_000, ge=1)
    bcrypt_rounds: int = Field(default=12, ge=4, le=16)


class WorkerSettings(Settings):
    """What a worker needs beside."""

    queues: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}(,[a-z0-9][a-z0-9_.-]{0,63}){0,31}$")] = (
        "high,default,low"
    )
    slots: int = Field(default=16, ge=1, le=1000)
    lease_s: float = Field(default=30.0, ge=1, le=3600)
    shutdown_grace_s: float = Field(default=30.0, ge=0, le=86_400)
    smtp_url: SecretStr | None = None
    mail_from: str = "taskflow@localhost"
    fetch_allow_hosts: Annotated[str, AfterValidator(_allow_list)] = ""


class SchedulerSettings(Settings):
    """What the scheduler needs beside."""

    sweep_interval_s: float = Field(default=1.0, ge=0.1, le=60)
    lease_sweep_interval_s: float = Field(default=5.0, ge=0.1, le=60)


S = TypeVar("S", bound=BaseSettings)


@cache
def load(kind: type[S]) -> S:
    """Read settings of that kind from the environment, once.

    Raises:
        BadSettings: with a sentence for each variable that is missing or wrong.
    """
    try:
        return kind(_secrets_dir=_secrets_dir())
    except ValidationError as error:
        raise BadSettings([_sentence(problem) for problem in error.errors()]) from None


def _secrets_dir() -> str | None:
    path = Path("/run/secrets/taskflow")
    return str(path) if path.is_dir() else None


def _sentence(problem: ErrorDetails) -> str:
    name = PREFIX + "_".join(str(part) for part in problem["loc"]).upper()
    if problem["type"] == "missing":
        return f"{name} is missing: set it in the environment."
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"{name} is wrong: {message[0].lower()}{message[1:]}."


def load_or_exit(kind: type[S]) -> S:
    """Read settings of that kind, or print what is wrong to standard error and leave with status 2."""
    try:
        settings: S = load(kind)
    except BadSettings as error:
        sys.stderr.write("taskflow: the environment is not complete:\n")
        sys.stderr.writelines(f"  {problem}\n" for problem in error.problems)
        raise SystemExit(2) from None
    return settings
