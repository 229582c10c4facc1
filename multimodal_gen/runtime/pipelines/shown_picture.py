"""Input images that the denoiser sees next to the output."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from multimodal_gen.messages.pictures import images_of
from multimodal_gen.runtime.layers.rope import Grid
from multimodal_gen.runtime.models.vaes.input_images import InputImage, fit_image
from multimodal_gen.runtime.pipelines.latents.layout import LatentLayout, size_of
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
        first = _shown(state)
        tokens = [] if first is None else [first]
        for picture in pictures[len(tokens) :]:
            tokens.append(self._layout.encode(fit_image(picture, *self._fit(picture))))
        for conditioning in state.conditioning.values():
            conditioning["picture"] = torch.cat(tokens, dim=1)

    def inpainted(self, state: RequestState, *, drawn: bool) -> Tensor:
        """Clean latents of the first image at the request's size, for inpainting: it starts from
        them, and they are what is shown of that image. `drawn`: from the posterior."""
        pixels = fit_image(state.pictures["image"], *size_of(state.params))
        clean = self._layout.encode(pixels, state.generator if drawn else None)
        for conditioning in state.conditioning.values():
            conditioning["picture"] = clean
        return clean

    def grids(self, state: RequestState) -> tuple[Grid, ...]:
        """Tokens down and across, per image."""
        multiple = self._layout.size_multiple
        sizes = [self._fit(each) for each in images_of(state.pictures)]
        if "mask" in state.pictures:
            sizes[0] = size_of(state.params)
        return tuple((height // multiple, width // multiple) for height, width in sizes)


def _shown(state: RequestState) -> Tensor | None:
    """Tokens of the first image, if it is inpainted."""
    return next(iter(state.conditioning.values())).get("picture")
