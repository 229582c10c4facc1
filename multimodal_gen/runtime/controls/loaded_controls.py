"""Controls that are loaded for a pipeline."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from multimodal_gen.errors import InvalidRequest
from multimodal_gen.runtime.controls.control import Control, ControlPicture
from multimodal_gen.runtime.controls.control_rows import ControlRows, ControlUse, RowUses


class LoadedControls:
    """Controls under the keys that requests use."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._loaded: dict[int, Control] = {}

    def add(self, key: int, control: Control) -> None:
        """Add a control under `key`, which must be new."""
        self._loaded[key] = control

    def remove(self, key: int) -> None:
        """Free a control; no effect if it isn't loaded."""
        self._loaded.pop(key, None)

    def check(self, uses: Sequence[ControlUse], height: int, width: int) -> None:
        """Raise InvalidRequest for a mode or a size, in pixels, that a control does not take."""
        for use in uses:
            wrong = self._loaded[use.key].misuse(use.mode, height, width)
            if wrong is not None:
                raise InvalidRequest("control", use.name, wrong)

    def prepare(self, use: ControlUse, picture: ControlPicture) -> None:
        """Let the control look at the picture, once for all evaluations."""
        use.told = self._loaded[use.key].prepared(picture)

    def rows(self, uses: Sequence[RowUses]) -> ControlRows | None:
        """Controls of an evaluation whose row r uses `uses[r]`; None if no row uses any."""
        return ControlRows(uses, self._loaded, self._device) if any(uses) else None
