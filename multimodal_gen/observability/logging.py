"""Logs to standard error; each line names its process and its request."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from multimodal_gen.configs.arguments.engine_args import LogFormat
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.observability.context import current
from multimodal_gen.observability.log_tail import LOG_TAIL

LEVEL_VARIABLE = "MULTIMODAL_GEN_LOG_LEVEL"
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
ACCESS = "multimodal_gen.access"
LOGGERS = ("multimodal_gen", "uvicorn", "asyncio")
"""Warnings of these libraries are shown like our own."""


def configure_logging(process: str, log_format: LogFormat = "text") -> None:
    """Log this project's messages to stderr. The level is WARNING unless the environment sets
    another; HTTP requests are always logged, except at CRITICAL. Raises InvalidRequest for a level
    that there is not."""
    level = log_level()
    handler = handler_of(process, log_format)
    LOG_TAIL.setFormatter(TextLines(process))
    LOG_TAIL.filters = [_add_request]
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = [handler, LOG_TAIL]
        logger.propagate = False
        logger.setLevel(level)
    access = logging.getLogger(ACCESS)
    access.setLevel(logging.NOTSET if level == "CRITICAL" else logging.INFO)


def log_level() -> str:
    """The level that the environment sets. Raises InvalidRequest if there is no such level."""
    given = os.environ.get(LEVEL_VARIABLE) or "WARNING"
    if given.upper() not in LEVELS:
        raise InvalidRequest(LEVEL_VARIABLE, given, f"must be one of {', '.join(LEVELS)}")
    return given.upper()


def handler_of(process: str, log_format: LogFormat) -> logging.Handler:
    """Handler that writes to standard error in the given format."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(process) if log_format == "json" else TextLines(process))
    handler.addFilter(_add_request)
    return handler


class TextLines(logging.Formatter):
    """Formats a record as one line of text."""

    def __init__(self, process: str) -> None:
        super().__init__(f"%(asctime)s %(levelname)s {process} %(name)s: %(message)s%(of_request)s")


class JsonLines(logging.Formatter):
    """Formats a record as one JSON object per line: time, level, process, logger, message,
    fields."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "request", {}),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def fields(**values: object) -> Mapping[str, object]:
    """Build the `extra` of a log call: fields of their own in JSON lines."""
    return {"fields": values}


def _add_request(record: logging.LogRecord) -> bool:
    context = current()
    known = {} if context is None else vars(context)
    request = {name: value for name, value in known.items() if value is not None}
    shown = "".join(f" {name}={value}" for name, value in request.items())
    record.__dict__.update(request=request, of_request=shown)
    return True
