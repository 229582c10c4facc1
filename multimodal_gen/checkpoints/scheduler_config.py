"""A checkpoint's scheduler_config.json, checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from multimodal_gen.checkpoints.config_numbers import MAY_BE_INFINITE, check_scheduler
from multimodal_gen.checkpoints.files import check_sizes, read_json

PATH = "scheduler/scheduler_config.json"


def scheduler_config(folder: Path, class_name: str) -> dict[str, Any]:
    """Read the config of a scheduler, whose class the checkpoint's index names.

    Raises InvalidCheckpoint.
    """
    config = read_json(folder, PATH)
    check_sizes({key: value for key, value in config.items() if key != MAY_BE_INFINITE}, PATH)
    check_scheduler(config, PATH)
    return {**config, "_class_name": class_name}
