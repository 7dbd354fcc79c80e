"""The platform under test: the embedded one, with two workers and two schedulers, and leases of two seconds."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from taskflow_cli.chaos.plan import SCHEDULERS, WORKERS
from taskflow_cli.embedded.children import Site, api_child, mail_child, scheduler_child, worker_child
from taskflow_cli.embedded.keeper import Child
from taskflow_cli.embedded.platform import Platform, PlatformOptions

SLOTS = 8
RESTART_CAP_S = 2.0  # what falls every few seconds must come back every few seconds
SETTINGS = {
    "TASKFLOW_LEASE_S": "2",
    "TASKFLOW_LEASE_SWEEP_INTERVAL_S": "0.5",
    "TASKFLOW_SWEEP_INTERVAL_S": "0.5",
    "TASKFLOW_SHUTDOWN_GRACE_S": "1",
    "TASKFLOW_BCRYPT_ROUNDS": "4",
}


def chaos_platform(folder: Path) -> Platform:
    """Return the platform, not yet started."""
    options = PlatformOptions(data_dir=folder, api_port=0, slots=SLOTS, quiet=True, restart_cap_s=RESTART_CAP_S)
    return Platform(options, apps=_apps)


def _apps(site: Site) -> Sequence[Child]:
    return [
        mail_child(site),
        _tuned(api_child(site), "api"),
        *(_tuned(scheduler_child(site), name) for name in SCHEDULERS),
        *(_tuned(worker_child(site), name) for name in WORKERS),
    ]


def _tuned(child: Child, name: str) -> Child:
    launch = replace(child.launch, env={**child.launch.env, **SETTINGS})
    return replace(child, name=name, launch=launch)
