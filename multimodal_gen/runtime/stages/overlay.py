"""Keeps an image exactly as it is where its mask is black."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from multimodal_gen.runtime.distributed.device_copies import copied
from multimodal_gen.runtime.models.vaes.input_images import resized
from multimodal_gen.runtime.stages.request_state import RequestState


def _resized(picture: np.ndarray[Any, Any], pixels: Tensor) -> Tensor:
    return torch.from_numpy(np.array(resized(picture, *pixels.shape[1:3])))


def with_unmasked(state: RequestState, pixels: Tensor) -> Tensor:
    """Lay the request's image over decoded pixels [F, H, W, 3] uint8, if it asks for that.

    What was repainted, where the mask is 128 and above, is shown in full; darker greys blend.
    """
    if not state.params.keep_unmasked or "mask" not in state.pictures:
        return pixels
    image, mask = (
        copied(_resized(state.pictures[name], pixels), pixels.device).float()
        for name in ("image", "mask")
    )
    shown = (mask / 127.5).clamp(max=1)[..., None]  # [H, W, 1]
    return (image + (pixels - image) * shown).round().to(torch.uint8)
