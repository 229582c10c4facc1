"""A checkpoint's scheduler_config.json, checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from multimodal_gen.checkpoints.config_numbers import MAY_BE_INFINITE, check_scheduler
from multimodal_gen.checkpoints.files import check_sizes, read_json

_FILE = "scheduler_config.json"
PATH = f"scheduler/{_FILE}"


def scheduler_config(folder: Path, class_name: str, name: str = "scheduler") -> dict[str, Any]:
    """Read the config of scheduler `name`, whose class the checkpoint's index names.

    Raises InvalidCheckpoint.
    """
    path = f"{name}/{_FILE}"
    config = read_json(folder, path)
    check_sizes({key: value for key, value in config.items() if key != MAY_BE_INFINITE}, path)
    check_scheduler(config, path)
    return {**config, "_class_name": class_name}
