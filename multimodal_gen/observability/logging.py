"""Logs go to standard error; each line says which process it is from, and for which request."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from multimodal_gen.configs.engine_args import LogFormat
from multimodal_gen.observability.context import current

LEVEL_VARIABLE = "MULTIMODAL_GEN_LOG_LEVEL"
ACCESS = "multimodal_gen.access"
LOGGERS = ("multimodal_gen", "uvicorn", "asyncio")
"""Others' warnings are shown as ours are."""


def configure_logging(process: str, log_format: LogFormat = "text") -> None:
    """Log this project's messages to stderr, at WARNING unless the environment says otherwise, and
    what was asked of the server in any case (at CRITICAL, not that either)."""
    level = os.environ.get(LEVEL_VARIABLE, "WARNING").upper()
    handler = handler_of(process, log_format)
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(level)
    access = logging.getLogger(ACCESS)
    access.setLevel(logging.NOTSET if level == "CRITICAL" else logging.INFO)


def handler_of(process: str, log_format: LogFormat) -> logging.Handler:
    """To standard error, in that format."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(process) if log_format == "json" else TextLines(process))
    handler.addFilter(_add_request)
    return handler


class TextLines(logging.Formatter):
    """A line for people."""

    def __init__(self, process: str) -> None:
        super().__init__(f"%(asctime)s %(levelname)s {process} %(name)s: %(message)s%(of_request)s")


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, process, logger, message, and what else is known."""

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
    """`extra` of a log call: what JSON lines show as fields of their own."""
    return {"fields": values}


def _add_request(record: logging.LogRecord) -> bool:
    context = current()
    known = {} if context is None else vars(context)
    request = {name: value for name, value in known.items() if value is not None}
    shown = "".join(f" {name}={value}" for name, value in request.items())
    record.__dict__.update(request=request, of_request=shown)
    return True
