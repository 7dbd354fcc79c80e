"""Settings: every mistake is one sentence that names its variable, and no secret is ever shown."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskflow_core import settings
from taskflow_core.settings import ApiSettings, BadSettings, SchedulerSettings, Settings, WorkerSettings, load

DATABASE = "postgresql://taskflow:database-pass@db:5432/taskflow"
REDIS = "redis://:redis-pass@redis:6379/0"
SECRET = "a-signing-key-of-at-least-32-bytes"
SECRETS = ("database-pass", "redis-pass", SECRET)


@pytest.fixture(autouse=True)
def complete(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give each test a complete environment and settings that were not read yet."""
    for name in [name for name in os.environ if name.startswith(settings.PREFIX)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TASKFLOW_DATABASE_URL", DATABASE)
    monkeypatch.setenv("TASKFLOW_REDIS_URL", REDIS)
    monkeypatch.setenv("TASKFLOW_JWT_SECRET", SECRET)
    load.cache_clear()
    yield
    load.cache_clear()


def problems(kind: type[Settings]) -> list[str]:
    with pytest.raises(BadSettings) as raised:
        load(kind)
    return raised.value.problems


@pytest.mark.parametrize("kind", [Settings, ApiSettings, WorkerSettings, SchedulerSettings])
def test_a_complete_environment_loads_once_and_cannot_be_changed(kind: type[Settings]) -> None:
    loaded = load(kind)
    assert loaded is load(kind)
    with pytest.raises(ValueError, match="frozen"):
        loaded.log_level = "debug"  # type: ignore[misc]  # what the type checker forbids is what is tried


@pytest.mark.parametrize("kind", [Settings, WorkerSettings, SchedulerSettings])
def test_only_the_api_holds_the_signing_key(kind: type[Settings]) -> None:
    assert not hasattr(load(kind), "jwt_secret")
    assert load(ApiSettings).jwt_secret.get_secret_value() == SECRET


@pytest.mark.parametrize("value", [None, ""], ids=["unset", "empty"])
@pytest.mark.parametrize("name", ["TASKFLOW_DATABASE_URL", "TASKFLOW_REDIS_URL", "TASKFLOW_JWT_SECRET"])
def test_a_missing_variable_is_named_with_both_places_to_set_it(
    name: str, value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(name)
    if value is not None:
        monkeypatch.setenv(name, value)
    file = f"/run/secrets/taskflow/{name.lower()}"
    assert problems(ApiSettings) == [f"{name} is missing: set it in the environment, or in the file {file}."]


@pytest.mark.parametrize(
    ("kind", "name", "value", "words"),
    [
        (Settings, "TASKFLOW_LOG_LEVEL", "loud", "'debug', 'info', 'warning' or 'error'"),
        (Settings, "TASKFLOW_LOG_FORMAT", "xml", "'json' or 'console'"),
        (Settings, "TASKFLOW_DATABASE_POOL_SIZE", "0", "greater than or equal to 1"),
        (Settings, "TASKFLOW_DATABASE_POOL_SIZE", "many", "a valid integer"),
        (Settings, "TASKFLOW_DATABASE_TIMEOUT_S", "nan", "finite number"),
        (Settings, "TASKFLOW_REDIS_TIMEOUT_S", "inf", "finite number"),
        (ApiSettings, "TASKFLOW_JWT_SECRET", "short", "at least 32 bytes; make one with: openssl rand"),
        (ApiSettings, "TASKFLOW_JWT_PREVIOUS_SECRET", "short", "at least 32 bytes"),
        (ApiSettings, "TASKFLOW_API_PORT", "tcp://10.0.0.1:8000", "a valid integer"),
        (ApiSettings, "TASKFLOW_API_PORT", "65536", "less than or equal to 65535"),
        (ApiSettings, "TASKFLOW_REFRESH_IDLE_TTL_S", "9" * 30, "less than or equal to 31622400"),
        (ApiSettings, "TASKFLOW_BCRYPT_ROUNDS", "31", "less than or equal to 16"),
        (WorkerSettings, "TASKFLOW_QUEUES", "high, low", "separated by commas, without spaces"),
        (WorkerSettings, "TASKFLOW_QUEUES", "high,High", "a-z 0-9"),
        (WorkerSettings, "TASKFLOW_QUEUES", "high,,low", "1 to 32 different names"),
        (WorkerSettings, "TASKFLOW_QUEUES", "high,high", "1 to 32 different names"),
        (WorkerSettings, "TASKFLOW_QUEUES", ",".join(f"q{n}" for n in range(33)), "1 to 32 different names"),
        (WorkerSettings, "TASKFLOW_SLOTS", "0", "greater than or equal to 1"),
        (SchedulerSettings, "TASKFLOW_SWEEP_INTERVAL_S", "0", "greater than or equal to 0.1"),
    ],
)
def test_a_wrong_value_is_one_sentence_with_the_name_and_what_would_be_right(
    kind: type[Settings], name: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    (sentence,) = problems(kind)
    assert sentence.startswith(f"{name} is wrong: ")
    assert words in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("url", "stored"),
    [
        ("postgresql://u:p@h:5432/db", "postgresql+psycopg://u:p@h:5432/db"),
        ("postgres://h/db", "postgresql+psycopg://h/db"),
        ("postgresql+psycopg://h/db", "postgresql+psycopg://h/db"),
        ("postgresql://h/db?sslmode=require", "postgresql+psycopg://h/db?sslmode=require"),
        ("postgresql:///db?host=/run/postgresql", "postgresql+psycopg:///db?host=/run/postgresql"),
        ("postgresql://[::1]:5432/db", "postgresql+psycopg://[::1]:5432/db"),
        ("postgresql://u:p%40%2F@h/db", "postgresql+psycopg://u:p%40%2F@h/db"),
        ("postgresql://u:p@/db?host=a,b&port=5432,5433", "postgresql+psycopg://u:p@/db?host=a,b&port=5432,5433"),
        (" postgresql://h/db\n", "postgresql+psycopg://h/db"),
    ],
)
def test_a_database_address_that_libpq_reads_is_accepted(
    url: str, stored: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKFLOW_DATABASE_URL", url)
    assert load(Settings).database_url.get_secret_value() == stored


@pytest.mark.parametrize(
    "url",
    [
        "db",
        "mysql://h/db",
        "postgresql+asyncpg://h/db",
        "postgresql://",
        "postgresql://h",
        "postgresql://h/",
        "postgresql://h:0/db",
        "postgresql://h:65536/db",
        "postgresql://h:five/db",
        "postgresql://[::1/db",
        "postgresql://u:p@ss@h/db",
        "postgresql://u:1/x@h/db",
        "postgresql://h/db%zz",
        "postgresql://h/db?sslmod=require",
        "postgresql://h1:5432,h2:5432/db",
    ],
)
def test_a_database_address_with_a_mistake_is_refused_without_being_shown(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKFLOW_DATABASE_URL", url)
    assert problems(Settings) == [
        "TASKFLOW_DATABASE_URL is wrong: must look like postgresql://user:password@host:5432/database "
        "(special characters as %40)."
    ]


@pytest.mark.parametrize("url", ["redis://h", "redis://h:6379/0", "rediss://u:p@h/15", "unix:///run/redis.sock"])
def test_a_redis_address_is_accepted(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKFLOW_REDIS_URL", url)
    assert load(Settings).redis_url.get_secret_value() == url


@pytest.mark.parametrize(
    "url",
    [
        "h:6379",
        "http://h",
        "redis://",
        "redis:///0",
        "redis://h:0",
        "redis://h:x",
        "redis://h:70000",
        "redis://h/zero",
        "redis://h/0/1",
        "redis://:p#w@h/0",
        "unix://",
    ],
)
def test_a_redis_address_with_a_mistake_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKFLOW_REDIS_URL", url)
    assert problems(Settings) == [
        "TASKFLOW_REDIS_URL is wrong: must look like redis://user:password@host:6379/0 (special characters as %40)."
    ]


def test_an_optional_variable_that_is_empty_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKFLOW_JWT_PREVIOUS_SECRET", "")
    monkeypatch.setenv("TASKFLOW_API_PORT", "")
    loaded = load(ApiSettings)
    assert (loaded.jwt_previous_secret, loaded.api_port) == (None, 8000)


def test_settings_never_show_a_secret() -> None:
    loaded = load(ApiSettings)
    shown = f"{loaded!r} {loaded} {loaded.model_dump_json()} {loaded.model_dump()}"
    assert not [secret for secret in SECRETS if secret in shown]


def test_a_value_made_from_a_file_loses_the_newline_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKFLOW_JWT_SECRET", SECRET + "\n")
    assert load(ApiSettings).jwt_secret.get_secret_value() == SECRET


@pytest.mark.parametrize("name", ["taskflow_jwt_secret", "TASKFLOW_JWT_SECRET"])
def test_a_secret_is_read_from_a_mounted_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Kubernetes mounts a secret as links into a folder that it swaps.
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data" / name).write_text(f"{'f' * 40}\n")
    (tmp_path / name).symlink_to(Path("..data") / name)
    monkeypatch.setenv("TASKFLOW_SECRETS_DIR", str(tmp_path))
    monkeypatch.delenv("TASKFLOW_JWT_SECRET")
    assert load(ApiSettings).jwt_secret.get_secret_value() == "f" * 40


def test_the_environment_wins_over_a_mounted_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "taskflow_jwt_secret").write_text("f" * 40)
    monkeypatch.setenv("TASKFLOW_SECRETS_DIR", str(tmp_path))
    assert load(ApiSettings).jwt_secret.get_secret_value() == SECRET


def test_a_folder_of_secrets_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKFLOW_SECRETS_DIR", str(tmp_path / "absent"))
    assert problems(Settings) == [f"TASKFLOW_SECRETS_DIR is wrong: {tmp_path}/absent is not a directory."]


def test_a_file_of_secrets_that_is_no_text_is_told_without_its_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "taskflow_jwt_secret").write_bytes(b"\xff" * 40)
    monkeypatch.setenv("TASKFLOW_SECRETS_DIR", str(tmp_path))
    (sentence,) = problems(ApiSettings)
    assert sentence.startswith(f"TASKFLOW_SECRETS_DIR is wrong: in {tmp_path}, ")
    assert '"jwt_secret"' in sentence
    assert "0xff" not in sentence


def test_a_process_tells_all_mistakes_at_once_and_leaves_with_status_2() -> None:
    program = "from taskflow_core.settings import *; load_or_exit(ApiSettings)"
    environment = {"TASKFLOW_DATABASE_URL": "postgresql://u:database-pass@h", "TASKFLOW_JWT_SECRET": "tiny-secret"}
    ended = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
    lines = ended.stderr.splitlines()
    assert (ended.returncode, ended.stdout) == (2, "")
    assert lines[0] == "taskflow: the environment is not complete:"
    assert [line.split()[0] for line in lines[1:]] == [
        "TASKFLOW_DATABASE_URL",
        "TASKFLOW_REDIS_URL",
        "TASKFLOW_JWT_SECRET",
    ]
    assert "database-pass" not in ended.stderr
    assert "tiny-secret" not in ended.stderr
