"""Latents with one token each: FLUX.2, LTX-Video."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.runtime.distributed.device_copies import copied
from multimodal_gen.runtime.pipelines.latents.layout import LatentLayout


class LatentTokens(LatentLayout):
    """Tokens [1, h * w, C], for a video [1, T * h * w, C]."""

    def mask(self, mask: Tensor, params: SamplingParams) -> Tensor:
        """Grey along its edges, one value per token."""
        mask = F.interpolate(mask, self.shape(params)[-2:], mode="bilinear")
        return copied(self.pack(mask), self.device, self.dtype)

    def pack(self, latents: Tensor) -> Tensor:
        return latents.flatten(2).transpose(1, 2)

    def unpack(self, latents: Tensor, params: SamplingParams) -> Tensor:
        unpacked: Tensor = latents.transpose(1, 2).unflatten(2, self.shape(params)[1:])
        return unpacked
