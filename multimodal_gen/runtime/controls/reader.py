"""Reads controls of any kind for a model."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from functools import cache

import torch

from multimodal_gen.checkpoints.adapter_folder import AdapterFile
from multimodal_gen.checkpoints.files import check_sizes, read_json
from multimodal_gen.checkpoints.header import read_header
from multimodal_gen.errors import InvalidCheckpoint, InvalidRequest
from multimodal_gen.runtime.controls import kinds
from multimodal_gen.runtime.controls.control import (
    Control,
    ControlDescription,
    ControlKind,
    ControlTarget,
)


class ControlReader:
    """Reads controls for one model."""

    def __init__(self, target: ControlTarget) -> None:
        self.target = target

    @torch.inference_mode()
    def read(self, file: AdapterFile) -> Control:
        """Load a control. Raises InvalidRequest for one that is for another model, before a weight
        is read."""
        try:
            return self._read(file)
        except InvalidCheckpoint as error:
            raise InvalidRequest("control", file.name, error.message) from error

    def _read(self, file: AdapterFile) -> Control:
        described = describe(file)
        kind = next((kind for kind in all_kinds() if kind.reads(described)), None)
        if kind is None:
            found = described.class_name or "its tensors"
            raise InvalidRequest("control", file.name, f"is of no known kind ({found})")
        if (other := kind.misfit(described, self.target)) is not None:
            raise InvalidRequest(
                "control", file.name, f"{other}; the model is {self.target.family}"
            )
        return kind.load(described, self.target)


def describe(file: AdapterFile) -> ControlDescription:
    """Read the config and the header of a control. Raises InvalidCheckpoint."""
    config = {} if file.config is None else read_json(file.config.parent, file.config.name)
    check_sizes(config, f"{file.name}/config.json")
    return ControlDescription(file, config, read_header(file.weights))


@cache
def all_kinds() -> Sequence[ControlKind]:
    """The kinds of all modules in `controls/kinds`."""
    names = sorted(each.name for each in pkgutil.iter_modules(kinds.__path__))
    modules = (importlib.import_module(f"{kinds.__name__}.{name}") for name in names)
    return tuple(module.KIND for module in modules)
