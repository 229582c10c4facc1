"""Decoding of pictures by diffusers' AutoencoderKL."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal_gen.runtime.models.vaes.pixels import to_uint8

_PREVIEW_SIDE = 32  # latents; 256 pixels of an 8x VAE


def scale_factor(vae: Any) -> int:
    """Pixels a latent, along each side."""
    return int(2 ** (len(vae.config.block_out_channels) - 1))


def for_decoding(vae: Any) -> Any:
    """The VAE with its weights laid out as convolutions like them best: channels last."""
    return vae.to(memory_format=torch.channels_last)


def decode_image(vae: Any, latents: Tensor) -> Tensor:
    """Latents [B, C, h, w], as the denoiser knows them -> [B, H, W, 3] uint8, untiled."""
    latents = _unscaled(vae, latents.to(vae.dtype)).contiguous(memory_format=torch.channels_last)
    return to_uint8(vae.decode(latents, return_dict=False)[0])


def decode_preview(vae: Any, latents: Tensor) -> Tensor:
    """A small picture [h, w, 3] uint8 of latents [1, C, h, w]; large ones are shrunk before."""
    larger = max(latents.shape[-2:])
    if larger > _PREVIEW_SIDE:
        size = [max(1, side * _PREVIEW_SIDE // larger) for side in latents.shape[-2:]]
        latents = F.interpolate(latents.float(), size, mode="area").to(latents.dtype)
    return decode_image(vae, latents)[0]


def _unscaled(vae: Any, latents: Tensor) -> Tensor:
    """Undo the scaling between VAE and denoiser, in the order that diffusers' pipelines have."""
    config = vae.config
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean is not None and std is not None:
        scale, shift = (torch.tensor(v).to(latents).view(1, -1, 1, 1) for v in (std, mean))
        scaled: Tensor = latents * scale / config.scaling_factor
        return scaled + shift
    shift_factor: float | None = config.get("shift_factor")
    latents = latents / config.scaling_factor
    return latents if shift_factor is None else latents + shift_factor
