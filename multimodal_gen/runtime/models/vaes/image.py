"""Encoding and decoding of pictures by diffusers' AutoencoderKL, decoding also by AutoencoderDC."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal_gen.runtime.models.vaes.pixels import to_uint8

_PREVIEW_SIDE = 32  # latents; 256 pixels of an 8x VAE


def scale_factor(vae: Any) -> int:
    """Pixels a latent, along each side."""
    config = vae.config
    blocks = config.get("block_out_channels") or config.encoder_block_out_channels
    return int(2 ** (len(blocks) - 1))


def for_decoding(vae: Any) -> Any:
    """The VAE with its weights laid out as convolutions like them best: channels last."""
    return vae.to(memory_format=torch.channels_last)


def decode_image(vae: Any, latents: Tensor) -> Tensor:
    """Latents [B, C, h, w], as the denoiser knows them -> [B, H, W, 3] uint8, untiled."""
    latents = _unscaled(vae, latents.to(vae.dtype)).contiguous(memory_format=torch.channels_last)
    return to_uint8(vae.decode(latents, return_dict=False)[0])


def encode_image(vae: Any, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Pixels [B, 3, H, W] in -1..1 -> latents [B, C, h, w], as the denoiser knows them.

    Drawn from the VAE's posterior by `generator` (on the CPU), or without one the posterior's mode.
    In the VAE's dtype.
    """
    pixels = pixels.to(vae.device, vae.dtype).contiguous(memory_format=torch.channels_last)
    posterior = vae.encode(pixels, return_dict=False)[0]
    latents = posterior.mode() if generator is None else posterior.sample(generator)
    return _scaled(vae, latents).contiguous()


def decode_preview(vae: Any, latents: Tensor) -> Tensor:
    """A small picture [h, w, 3] uint8 of latents [1, C, h, w]; large ones are shrunk before."""
    return decode_image(vae, shrunk(latents))[0]


def shrunk(latents: Tensor) -> Tensor:
    """Latents [1, C, h, w], fewer where they are more than a preview needs."""
    larger = max(latents.shape[-2:])
    if larger <= _PREVIEW_SIDE:
        return latents
    size = [max(1, side * _PREVIEW_SIDE // larger) for side in latents.shape[-2:]]
    return F.interpolate(latents.float(), size, mode="area").to(latents.dtype)


def _scaled(vae: Any, latents: Tensor) -> Tensor:
    """The scaling between VAE and denoiser, in the order that diffusers' pipelines have."""
    factor: float = vae.config.scaling_factor
    statistics = _statistics(vae, latents)
    if statistics is not None:
        mean, std = statistics
        return (latents - mean) * factor / std
    shift: float | None = vae.config.get("shift_factor")
    return (latents if shift is None else latents - shift) * factor


def _unscaled(vae: Any, latents: Tensor) -> Tensor:
    """Undo that scaling."""
    factor: float = vae.config.scaling_factor
    statistics = _statistics(vae, latents)
    if statistics is not None:
        mean, std = statistics
        return latents * std / factor + mean
    shift: float | None = vae.config.get("shift_factor")
    latents = latents / factor
    return latents if shift is None else latents + shift


def _statistics(vae: Any, latents: Tensor) -> tuple[Tensor, Tensor] | None:
    """Mean and standard deviation of each channel [1, C, 1, 1], where the VAE's config has them."""
    mean, std = vae.config.get("latents_mean"), vae.config.get("latents_std")
    if mean is None or std is None:
        return None
    return _per_channel(mean, latents), _per_channel(std, latents)


def _per_channel(values: list[float], latents: Tensor) -> Tensor:
    return torch.tensor(values).to(latents).view(1, -1, 1, 1)
