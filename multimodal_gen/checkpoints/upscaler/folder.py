"""The operator's folder of models that enlarge pictures, addressed by name."""

from __future__ import annotations

import re

from multimodal_gen.checkpoints.adapter_folder import AdapterFolder

_SCALE = re.compile(r"(?<![0-9])([1-8])x|x([1-8])(?![0-9])", re.IGNORECASE)
_USUAL_SCALE = 4.0


class UpscalerFolder(AdapterFolder):
    """Upscalers as single files, or in folders as diffusers saves them; those that come as pickles
    must be converted."""

    field = "upscale"
    config = "config.json"
    preferred = ("diffusion_pytorch_model.safetensors",)


def scale_of(name: str) -> float:
    """Scale that an upscaler's name tells, as `4x-UltraSharp` and `RealESRGAN_x2plus` do; 4
    otherwise."""
    found = _SCALE.search(name)
    return _USUAL_SCALE if found is None else float(found[1] or found[2])
