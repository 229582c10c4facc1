"""A second decoder with the same weights, whose layers work on bands."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from diffusers.models.attention_processor import Attention
from diffusers.models.autoencoders import autoencoder_kl_qwenimage, autoencoder_kl_wan, vae
from torch import nn

from multimodal_gen.runtime.distributed.rank_context import RankContext
from multimodal_gen.runtime.models.vaes.bands.exchange import Bands, LostBands
from multimodal_gen.runtime.models.vaes.bands.layers import (
    BandedAttention,
    BandedConv,
    BandedFrameAttention,
    BandedGroupNorm,
)
from multimodal_gen.runtime.models.vaes.vae import VAE

_wan: Any = autoencoder_kl_wan
_qwen: Any = autoencoder_kl_qwenimage
_DECODERS = (vae.Decoder, _wan.WanDecoder3d, _qwen.QwenImageDecoder3d)
_FRAME_ATTENTIONS = (_wan.WanAttentionBlock, _qwen.QwenImageAttentionBlock)

LEAST_PIXELS = 512 * 512
"""Of smaller pictures, exchanges would take as long as a GPU takes for a rank's share."""

Weights = Callable[[dict[str, Any]], dict[str, Any]]


class BandedDecoder:
    """`vae` decodes this rank's band while other ranks decode theirs.

    It holds no weights: its layers look them up in those of the module, which may move.
    """

    def __init__(self, wrapper: type[VAE], module: Any, bands: Bands) -> None:
        self.bands = bands
        self.vae = wrapper(_copied(module, bands, lambda weights: weights))
        self._wrapper = wrapper
        self._module = module

    @classmethod
    def of_rank(cls, wrapper: type[VAE], module: Any, context: RankContext) -> BandedDecoder | None:
        """Create it where there are several ranks, and the decoder is known."""
        mesh = context.mesh
        if mesh.world_size == 1 or not cls.knows(module):
            return None
        return cls(wrapper, module, Bands(mesh.rank, mesh.world_size, context.device))

    def suits(self, height: int, width: int) -> bool:
        """True for sizes in pixels of which each rank has rows, and enough to do."""
        rows = height // self.vae.module_scale
        return rows >= self.bands.ranks and height * width >= LEAST_PIXELS

    def rows(self, latents: int) -> int:
        """Rows of the module's latents, for the number of the denoiser's."""
        return latents * self.vae.pixels_per_latent // self.vae.module_scale

    @classmethod
    def knows(cls, module: Any) -> bool:
        """True if each layer of the module's decoder is known to work on bands."""
        decoder = getattr(module, "decoder", None)
        if type(decoder) not in _DECODERS:
            return False
        names = {type(each).__name__ for each in getattr(decoder, "up_blocks", ())}
        return names <= {"UpDecoderBlock2D", "WanUpBlock", "WanResidualUpBlock", "QwenImageUpBlock"}

    def lost(self) -> tuple[VAE, LostBands]:
        """A VAE without values, that makes the exchanges of one that has failed."""
        bands = LostBands(self.bands)
        return self._wrapper(_copied(self._module, bands, _without_values)), bands


def _without_values(weights: dict[str, Any]) -> dict[str, Any]:
    return {name: each if each is None else each.to("meta") for name, each in weights.items()}


def _copied(part: Any, bands: Bands, weights: Weights) -> Any:
    """A copy of a module on bands, without its encoder; `weights` is given the dictionaries."""
    made = copy.copy(part)
    made._parameters, made._buffers = weights(part._parameters), weights(part._buffers)
    made._modules = {
        name: each if each is None else _copied(each, bands, weights)
        for name, each in part._modules.items()
        if name != "encoder"
    }
    return _banded(made, bands)


def _banded(part: Any, bands: Bands) -> Any:
    """The layer that does what `part` does, on bands."""
    if isinstance(part, Attention):
        return BandedAttention(part, bands)
    if isinstance(part, _FRAME_ATTENTIONS):
        return BandedFrameAttention(part, bands)
    if isinstance(part, nn.GroupNorm):
        return BandedGroupNorm(part, bands)
    if isinstance(part, nn.Conv2d | nn.Conv3d) and part.kernel_size[-2] > 1:
        return BandedConv(part, bands)
    return part
