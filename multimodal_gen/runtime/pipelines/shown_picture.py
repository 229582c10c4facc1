"""Input images that the denoiser sees next to the output."""

from __future__ import annotations

from collections.abc import Callable

import torch

from multimodal_gen.messages.pictures import images_of
from multimodal_gen.runtime.layers.rope import Grid
from multimodal_gen.runtime.models.vaes.input_images import InputImage, fit_image
from multimodal_gen.runtime.pipelines.latents.layout import LatentLayout
from multimodal_gen.runtime.stages.request_state import RequestState


class ShownPicture:
    """Converts a request's images to tokens, which follow the denoised ones; the conditioning of
    all branches contains them as `picture`. A request without an image is not changed."""

    def __init__(self, layout: LatentLayout, fit: Callable[[InputImage], tuple[int, int]]) -> None:
        """`fit` returns the height and width at which an image is encoded."""
        self._layout = layout
        self._fit = fit

    def prepare(self, state: RequestState) -> None:
        pictures = images_of(state.pictures)
        if not pictures:
            return
        tokens = [self._layout.encode(fit_image(each, *self._fit(each))) for each in pictures]
        for conditioning in state.conditioning.values():
            conditioning["picture"] = torch.cat(tokens, dim=1)

    def grids(self, state: RequestState) -> tuple[Grid, ...]:
        """Tokens down and across, per image."""
        multiple = self._layout.size_multiple
        sizes = map(self._fit, images_of(state.pictures))
        return tuple((height // multiple, width // multiple) for height, width in sizes)
