"""Structured logs: one JSON object a line (or colours for a person), events named `noun.verb`, ids as fields."""

import contextlib
import logging
import os
import sys
import time
from datetime import UTC, datetime
from typing import Literal, TextIO

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

SECRET_FIELDS = frozenset({"authorization", "password", "token", "access_token", "refresh_token", "secret", "cookie"})


def configure_logs(*, level: str, style: Literal["json", "console"], service: str) -> None:
    """Send structlog's and the standard library's logs to standard output in one shape."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        _with_time(),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        _with_service(service),
        _hide_secrets,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(serializer=lambda event, **_: orjson.dumps(event, default=str).decode())
        if style == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())
    )
    output = _own_stdout()
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _Lines(output),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


class _Lines(structlog.WriteLogger):
    """Writes rendered lines; like the standard library's handlers, no broken pipe or full disk stops the work."""

    def msg(self, message: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            super().msg(message)

    debug = info = warning = error = critical = exception = msg


def _own_stdout() -> TextIO:
    """Return standard output under a descriptor of its own: a handler that closes stdout silences only itself."""
    try:
        return os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1, encoding="utf-8", errors="replace")
    except OSError:  # standard output is no file (a test captures it)
        return sys.stdout


def get_logger(name: str) -> FilteringBoundLogger:
    """Return the logger of a module."""
    logger: FilteringBoundLogger = structlog.get_logger(name)
    return logger


def _with_time() -> structlog.typing.Processor:
    """Stamp lines to the microsecond; the text of a second is made once, structlog's own takes fifteen times longer."""
    second, text = 0, ""

    def add(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        nonlocal second, text
        micros = time.time_ns() // 1000
        if micros // 1_000_000 != second:
            second = micros // 1_000_000
            text = datetime.fromtimestamp(second, UTC).isoformat()[:-6]
        event["timestamp"] = f"{text}.{micros % 1_000_000:06d}Z"
        return event

    return add


def _with_service(service: str) -> structlog.typing.Processor:
    def add(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["service"] = service
        return event

    return add


def _hide_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for field in SECRET_FIELDS & event.keys():
        event[field] = "[hidden]"
    return event
