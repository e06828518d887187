"""Events: constant messages with fields, through the standard library's logging, without secrets.

`get_logger` may be used at import time and before `configure_logging`: until then only warnings and errors are shown,
by the standard library's own last resort. Other libraries' records take the same way out and the same redaction.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, TextIO, cast

import structlog

from replicator.config.model import LogFormat, LogLevel
from replicator.telemetry.redaction import Redactor, redact_keys
from replicator.telemetry.rendering import render_console, render_json

Logger = structlog.stdlib.BoundLogger
_Event = MutableMapping[str, Any]

# Before our own processors: what belongs to an event wherever it is written to.
_PROCESSORS: tuple[Any, ...] = (
    structlog.stdlib.filter_by_level,
    structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
)


def get_logger(name: str) -> Logger:
    """Return the logger of a module; its methods take a constant message and fields."""
    logger = structlog.wrap_logger(logging.getLogger(name), processors=_PROCESSORS, wrapper_class=Logger)
    return cast("Logger", logger)


def configure_logging(
    level: LogLevel,
    style: LogFormat,
    redactor: Redactor,
    stream: TextIO | None = None,
) -> None:
    """Send every event from `level` on to `stream` (standard error); replaces what was configured before.

    Call it once, at start: logging belongs to the process, so this is the one thing here that does.
    """
    target = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(target)
    handler.setFormatter(EventFormatter(redactor, as_json=is_json(style, target), colours=target.isatty()))
    root = logging.getLogger()
    for old in list(root.handlers):
        if isinstance(old.formatter, EventFormatter):
            root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    # It reports every connection at `info` and every request's line at its own: ours says it better.
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    # A migration that succeeds is no news to an operator.
    logging.getLogger("alembic").setLevel(logging.WARNING)


def is_json(style: LogFormat, stream: TextIO) -> bool:
    """Tell whether lines are JSON; `auto` means words on a terminal only."""
    return style is LogFormat.JSON or (style is LogFormat.AUTO and not stream.isatty())


class EventFormatter(structlog.stdlib.ProcessorFormatter):
    """Renders a record, ours or another library's, and takes secrets out of the finished text."""

    def __init__(self, redactor: Redactor, *, as_json: bool, colours: bool = False) -> None:
        super().__init__(processors=[structlog.processors.format_exc_info, self._render])
        self._redactor = redactor
        self._as_json = as_json
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, or lines, of a record."""
        return self._redactor.redact(super().format(record))

    def _render(self, _logger: object, _name: str, event: _Event) -> str:
        record: logging.LogRecord = event["_record"]
        fields = _fields_of(event)
        message = str(event.get("event", ""))
        level = record.levelname.lower()
        if self._as_json:
            return render_json(record.created, level, message, {"logger": record.name, **fields})
        return render_console(record.created, level, message, fields, colours=self._colours)


def _fields_of(event: _Event) -> Mapping[str, object]:
    hidden = {"event", "_record", "_from_structlog"}
    return redact_keys({key: value for key, value in event.items() if key not in hidden})
