"""The operator's folder of models that enlarge pictures, addressed by name."""

from __future__ import annotations

import re
from pathlib import Path

from multimodal_gen.checkpoints.adapter_folder import AdapterFolder
from multimodal_gen.errors import InvalidRequest

_PICKLES = (".pth", ".pt", ".ckpt", ".bin")
_SCALE = re.compile(r"(?<![0-9])([1-8])x|x([1-8])(?![0-9])", re.IGNORECASE)
_USUAL_SCALE = 4.0


class UpscalerFolder(AdapterFolder):
    """Upscalers as safetensors files; those that come as pickles must be converted."""

    field = "upscale"
    config = ""
    preferred = ()

    def _unknown(self, name: str) -> InvalidRequest:
        plain = Path(name).name == name
        pickles = (name, *(name + suffix for suffix in _PICKLES))
        if plain and any(Path(each).suffix in _PICKLES and self._holds(each) for each in pickles):
            allowed = "is a pickle, which could run code: convert it to safetensors"
            return InvalidRequest(self.field, name, allowed)
        return super()._unknown(name)

    def _holds(self, file: str) -> bool:
        return any(path.name == file for path in self._root.iterdir())


def scale_of(name: str) -> float:
    """Scale that an upscaler's name tells, as `4x-UltraSharp` and `RealESRGAN_x2plus` do; 4
    otherwise."""
    found = _SCALE.search(name)
    return _USUAL_SCALE if found is None else float(found[1] or found[2])
