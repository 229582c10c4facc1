"""FLUX.1 Fill, after diffusers' FluxFillPipeline."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal_gen.configs.families.flux_fill import FLUX_FILL
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.distributed.device_copies import copied
from multimodal_gen.runtime.models.vaes.input_images import fit_image, fit_mask
from multimodal_gen.runtime.pipelines.families.flux import FluxPipeline
from multimodal_gen.runtime.pipelines.latents.layout import size_of
from multimodal_gen.runtime.pipelines.latents.packed import PATCH
from multimodal_gen.runtime.pipelines.start.picture_start import PictureStart, flow_model_start
from multimodal_gen.runtime.stages.request_state import RequestState
from multimodal_gen.runtime.stages.rows import Rows


class FluxFillPipeline(FluxPipeline):
    """Tokens also contain the image's latents, blank where it changes, and the mask's pixels."""

    family = FLUX_FILL
    widths: ClassVar = {
        "transformer.out_channels": ("vae.latent_channels",) * PATCH**2,
        **{
            name: parts
            for name, parts in FluxPipeline.widths.items()
            if name != "transformer.in_channels"
        },
    }

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        width = self._transformer.config.in_channels
        channels = 2 * self.vae.channels + self.vae.pixels_per_latent**2
        if width != PATCH**2 * channels:
            raise InvalidCheckpoint(
                f"transformer/config.json: in_channels={width} must be {PATCH**2 * channels}, for "
                "latents, image and mask"
            )

        self.start = PictureStart(self.layout, flow_model_start, self._show_unmasked)

    def _show_unmasked(
        self, state: RequestState, clean: Tensor, noise: Tensor, mask: Tensor
    ) -> None:
        mask = fit_mask(state.pictures["mask"], *size_of(state.params))
        pixels = fit_image(state.pictures["image"], *size_of(state.params)) * (1 - mask)
        picture = self.layout.encode(pixels, state.generator)
        masked = self.layout.pack(F.pixel_unshuffle(mask, self.vae.pixels_per_latent))
        masked = copied(masked, clean.device, clean.dtype)
        for conditioning in state.conditioning.values():
            conditioning["seen"] = torch.cat((picture, masked), dim=2)

    def predict(self, rows: Rows) -> Tensor:
        conditioning = dict(rows.conditioning)
        latents = torch.cat((rows.latents, conditioning.pop("seen")), dim=2)
        return super().predict(replace(rows, latents=latents, conditioning=conditioning))


PIPELINE = FluxFillPipeline
