"""What `kube` and `engine` share: where things live, child processes, Go builds."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
HOME = Path(os.environ.get("TASKFLOW_KUBE_HOME", Path.home() / ".cache/taskflow-kube"))


def run(*args: str | Path, **kwargs) -> str:
    """Run a command to its end and return what it printed; leave with its error if it fails."""
    done = subprocess.run([str(a) for a in args], text=True, capture_output=True, **kwargs)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, args))}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def install(programs: dict[str, str], *more: str) -> None:
    """Install the Debian packages of the programs (or files) that are missing."""
    missing = {
        package for program, package in programs.items() if not (shutil.which(program) or Path(program).exists())
    }
    if missing:
        env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        run("apt-get", "update", env=env)
        run("apt-get", "install", "-y", "--no-install-recommends", *sorted(missing), *more, env=env)


def go_build(folder: Path, outputs: dict[str, str], ldflags: str = "-s -w") -> Path:
    """Build Go packages (file name -> package) of one module, once for each recipe."""
    recipe = hashlib.sha256(repr(outputs).encode() + ldflags.encode())
    for source in sorted(folder.glob("*")):
        if source.suffix in (".go", ".mod", ".sum"):
            recipe.update(source.read_bytes())
    target = HOME / "bin" / recipe.hexdigest()[:12]
    if (target / ".complete").exists():
        return target
    if not shutil.which("go"):
        sys.exit("Go 1.26 or later is needed to build the programs")
    print(f"building {', '.join(outputs)}: some minutes the first time", file=sys.stderr)
    target.mkdir(parents=True, exist_ok=True)
    for name, package in outputs.items():
        run(
            "go",
            "build",
            "-trimpath",
            "-ldflags",
            ldflags,
            "-o",
            target / name,
            package,
            cwd=folder,
            env=os.environ | {"CGO_ENABLED": "0"},
        )
    (target / ".complete").touch()
    return target


def alive(pid: int) -> bool:
    """Whether that process runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def end(pid: int, grace: float = 10) -> None:
    """Ask a process to end, then make it."""
    for sig, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 5)):
        if alive(pid):
            os.kill(pid, sig)
        deadline = time.monotonic() + seconds
        while alive(pid) and time.monotonic() < deadline:
            time.sleep(0.1)


def unmount(folder: Path) -> None:
    """Detach everything that is mounted below a folder."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in sorted((m for m in mounts if m.startswith(f"{folder}/")), reverse=True):
        subprocess.run(["umount", "-l", mount], capture_output=True)
