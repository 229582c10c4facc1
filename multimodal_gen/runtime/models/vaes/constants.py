"""Per-channel numbers from a config, as tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from multimodal_gen.runtime.distributed.device_copies import copied


class ChannelConstants:
    """Values per channel [1, C, 1, ...], created once per device and dtype."""

    def __init__(self, values: Sequence[float], dims: int) -> None:
        """`dims` is the number of dimensions, 4 for latents [B, C, h, w]. Raises ValueError or
        TypeError if the values are not numbers."""
        self._values = tuple(float(value) for value in values)
        self._shape = (1, -1, *(1,) * (dims - 2))
        self._made: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def like(self, latents: Tensor) -> Tensor:
        """Values on the device and in the dtype of `latents`."""
        key = latents.device, latents.dtype
        if key not in self._made:
            self._made[key] = copied(torch.tensor(self._values).view(self._shape), *key)
        return self._made[key]
