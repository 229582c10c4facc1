"""Keeps an image exactly as it is where its mask is black."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from multimodal_gen.runtime.models.vaes.input_images import resized
from multimodal_gen.runtime.stages.request_state import RequestState


def with_unmasked(state: RequestState, pixels: Tensor) -> Tensor:
    """Lay the request's image over decoded pixels [F, H, W, 3] uint8, if it asks for that.

    What was repainted, where the mask is 128 and above, is shown in full; darker greys blend.
    """
    if not state.params.keep_unmasked or "mask" not in state.pictures:
        return pixels
    image, mask = (
        torch.from_numpy(np.array(resized(state.pictures[name], *pixels.shape[1:3])))
        .to(pixels.device)
        .float()
        for name in ("image", "mask")
    )
    shown = (mask / 127.5).clamp(max=1)[..., None]  # [H, W, 1]
    return (image + (pixels - image) * shown).round().to(torch.uint8)
