"""The API's process: `python -m taskflow_api`."""

import resource
import signal
import socket
import sys
from types import FrameType

import uvicorn

from taskflow_api.app import create_app
from taskflow_api.protocol import Bounds, bounded
from taskflow_core import garbage
from taskflow_core.handlers import Registry
from taskflow_core.logs import configure_logs
from taskflow_core.settings import ApiSettings, load_or_exit

SHUTDOWN_GRACE_S = 20
STALLED_S = 60.0  # a client that reads nothing of its answer for so long is cut off
OTHER_FILES = 200  # pools, logs, libraries
FAILED_TO_START = 3


class _Server(uvicorn.Server):
    """Ends the open streams before it waits for the running requests."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.config.app.state.resources.feed.close()  # type: ignore[union-attr] # uvicorn's type allows a name, too
        await super().shutdown(sockets)


def main() -> None:
    """Serve until SIGTERM or SIGINT, then let running requests finish for SHUTDOWN_GRACE_S seconds."""
    settings = load_or_exit(ApiSettings)
    configure_logs(level=settings.log_level, style=settings.log_format, service="api")
    _allow_files(settings.max_connections + OTHER_FILES)
    server = _Server(_config(settings, Registry.load_or_exit()))
    garbage.settle()
    # uvicorn raises the signal again once it has stopped: a stop that went well is status 0.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    server.run()
    if not server.started:
        sys.exit(FAILED_TO_START)


def _config(settings: ApiSettings, registry: Registry) -> uvicorn.Config:
    return uvicorn.Config(
        create_app(settings, registry=registry),
        host=settings.api_host,
        port=settings.api_port,
        loop="uvloop",
        http=bounded(Bounds(settings.header_timeout_s, STALLED_S, settings.max_connections)),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies or None,
        timeout_graceful_shutdown=SHUTDOWN_GRACE_S,
    )


def _allow_files(needed: int) -> None:
    """Raise the soft limit of open files as far as is needed and allowed: each connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def _leave(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)
