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
    stamp = _stamp(service)
    output = _own_stdout()
    renderer: structlog.typing.Processor = (
        _to_json if style == "json" else structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())
    )
    structlog.configure(
        processors=[stamp, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _Lines(output),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[stamp],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


_show_stack = structlog.processors.StackInfoRenderer()
_show_exception = structlog.processors.format_exc_info


class _Lines:
    """Writes a rendered line; like the standard library's handlers, no broken pipe or full disk stops the work."""

    def __init__(self, output: TextIO) -> None:
        self._output = output.buffer

    def msg(self, message: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._output.write(message.encode("utf-8", "replace") + b"\n")
            self._output.flush()

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


def _stamp(service: str) -> structlog.typing.Processor:
    """Return what completes an event: in steps of their own, a line for each request would cost twice as much."""
    second, text = 0, ""

    def complete(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        nonlocal second, text
        event = structlog.contextvars.merge_contextvars(logger, method, event)
        event["level"] = method
        micros = time.time_ns() // 1000
        if micros // 1_000_000 != second:
            second = micros // 1_000_000
            text = datetime.fromtimestamp(second, UTC).isoformat()[:-6]
        event["timestamp"] = f"{text}.{micros % 1_000_000:06d}Z"
        event["service"] = service
        if "exc_info" in event or "stack_info" in event:
            event = _show_stack(logger, method, _show_exception(logger, method, event))
        if not SECRET_FIELDS.isdisjoint(event):
            event.update(dict.fromkeys(SECRET_FIELDS & event.keys(), "[hidden]"))
        return event

    return complete


def _to_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    return orjson.dumps(event, default=str).decode()
