"""The API's process: `python -m taskflow_api`."""

import signal
import socket
import sys
from types import FrameType

import uvicorn

from taskflow_api.app import create_app
from taskflow_core.handlers import Registry
from taskflow_core.logs import configure_logs
from taskflow_core.settings import ApiSettings, load_or_exit

SHUTDOWN_GRACE_S = 20
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
    server = _Server(_config(settings, Registry.load_or_exit()))
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
        http="httptools",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies or None,
        timeout_graceful_shutdown=SHUTDOWN_GRACE_S,
    )


def _leave(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)
