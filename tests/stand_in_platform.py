"""Run the embedded platform with stand-ins for TaskFlow's own processes.

Arguments: data folder, API port, then `name=kind` for each stand-in.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from taskflow_cli.embedded.children import Site
from taskflow_cli.embedded.keeper import Child
from taskflow_cli.embedded.platform import PlatformOptions, run_platform
from taskflow_cli.embedded.process import Launch

UP = "import os, pathlib, signal, sys, subprocess; print('pid', os.getpid(), flush=True); mark = sys.argv[1]\n"
WAIT = "pathlib.Path(mark).touch()\nwhile True: signal.pause()\n"
KINDS = {
    "steady": UP + "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n" + WAIT,
    "stubborn": UP + "signal.signal(signal.SIGTERM, lambda *_: print('not yet', flush=True))\n" + WAIT,
    "parent": UP + "subprocess.Popen(['sleep', '600'])\n" + WAIT,
    "broken": UP + "sys.exit('no such luck')\n",
}


def stand_in(site: Site, name: str, kind: str) -> Child:
    """Return a child that is ready when it has touched its mark."""
    mark = site.folder / f"{name}.mark"
    mark.unlink(missing_ok=True)
    launch = Launch(command=(sys.executable, "-c", KINDS[kind], str(mark)), env={}, cwd=site.folder)
    return Child(name=name, launch=launch, is_ready=mark.exists, grace_s=120)


def main(arguments: Sequence[str]) -> int:
    """Run the platform that the arguments describe."""
    folder, port, *children = arguments
    options = PlatformOptions(data_dir=Path(folder), api_port=int(port))
    return run_platform(
        options, apps=lambda site: [stand_in(site, *child.split("=", maxsplit=1)) for child in children]
    )


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
