"""Checks of a second pass that starts from enlarged latents."""

from __future__ import annotations

from multimodal_gen.configs.second_pass import UpscaleChoice
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.runtime.models.latent_upsampler import LatentUpsampler
from multimodal_gen.runtime.models.upscaler import Upscaler


def check_upsampler(
    choice: UpscaleChoice, upscaler: Upscaler | LatentUpsampler, channels: int
) -> None:
    """Raise InvalidRequest for a model that does not fit the request, or latents of so many
    channels."""
    of_latents, again = isinstance(upscaler, LatentUpsampler), choice.strength is not None
    if of_latents != again:
        allowed = (
            "enlarges latents, so it needs a strength"
            if of_latents
            else ("enlarges pixels: a second pass (strength) needs one that enlarges latents")
        )
        raise InvalidRequest("upscale", upscaler.name, allowed)
    if not isinstance(upscaler, LatentUpsampler):
        return
    if choice.factor != upscaler.scale:
        raise InvalidRequest("upscale", choice.factor, f"factor must be {upscaler.scale:g}")
    if channels != upscaler.channels:
        allowed = f"must be for latents of {channels} channels, not {upscaler.channels}"
        raise InvalidRequest("upscale", upscaler.name, allowed)
