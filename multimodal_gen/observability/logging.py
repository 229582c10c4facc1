"""Logs go to standard error; each line says which process it is from."""

from __future__ import annotations

import logging
import os
import sys

LEVEL_VARIABLE = "MULTIMODAL_GEN_LOG_LEVEL"


def configure_logging(process: str) -> None:
    """Log this project's messages to stderr, at WARNING unless the environment says otherwise."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        logging.Formatter(f"%(asctime)s %(levelname)s {process} %(name)s: %(message)s")
    )
    logger = logging.getLogger("multimodal_gen")
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(os.environ.get(LEVEL_VARIABLE, "WARNING").upper())
