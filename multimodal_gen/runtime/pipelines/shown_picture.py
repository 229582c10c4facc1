"""An input image that the denoiser sees next to the output."""

from __future__ import annotations

from collections.abc import Callable

from multimodal_gen.runtime.layers.rope import Grid
from multimodal_gen.runtime.models.vaes.input_images import InputImage, fit_image
from multimodal_gen.runtime.pipelines.latents.layout import LatentLayout
from multimodal_gen.runtime.stages.request_state import RequestState


class ShownPicture:
    """Converts a request's image to tokens, which follow the denoised ones; the conditioning of all
    branches contains them as `picture`. A request without an image is not changed."""

    def __init__(self, layout: LatentLayout, fit: Callable[[InputImage], tuple[int, int]]) -> None:
        """`fit` returns the height and width at which an image is encoded."""
        self._layout = layout
        self._fit = fit

    def prepare(self, state: RequestState) -> None:
        for picture in self._pictures(state):
            tokens = self._layout.encode(fit_image(picture, *self._fit(picture)))
            for conditioning in state.conditioning.values():
                conditioning["picture"] = tokens

    def grids(self, state: RequestState) -> tuple[Grid, ...]:
        """Tokens down and across, per image."""
        multiple = self._layout.size_multiple
        sizes = (self._fit(picture) for picture in self._pictures(state))
        return tuple((height // multiple, width // multiple) for height, width in sizes)

    def _pictures(self, state: RequestState) -> list[InputImage]:
        return [picture for name, picture in state.pictures.items() if name == "image"]
