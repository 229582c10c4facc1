"""FLUX.1 Kontext, after diffusers' FluxKontextPipeline and FluxKontextInpaintPipeline."""

from __future__ import annotations

from functools import partial
from typing import Any

from diffusers.pipelines.flux import pipeline_flux_kontext as reference

from multimodal_gen.configs.families.flux_kontext import FLUX_KONTEXT
from multimodal_gen.runtime.layers.rope import Grid
from multimodal_gen.runtime.models.vaes.input_images import InputImage
from multimodal_gen.runtime.pipelines.families.flux import FluxPipeline
from multimodal_gen.runtime.pipelines.shown_picture import ShownPicture
from multimodal_gen.runtime.pipelines.start.picture_start import PictureStart, flow_model_start
from multimodal_gen.runtime.stages.request_state import RequestState


class FluxKontextPipeline(FluxPipeline):
    """Latents of an input image follow the denoised ones. Without one it is FLUX.1."""

    family = FLUX_KONTEXT
    sigmas_for_all = True
    tokens_beside = ("picture",)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._shown = ShownPicture(self.layout, self._fitted)
        clean = partial(self._shown.inpainted, drawn=False)
        self.start = PictureStart(self.layout, flow_model_start, picture=clean)

    def prepare(self, state: RequestState) -> None:
        super().prepare(state)
        self._shown.prepare(state)

    def grids(self, state: RequestState) -> tuple[Grid, ...]:
        return (*super().grids(state), *self._shown.grids(state))

    def batch_kind(self, state: RequestState, evaluation: int) -> str:
        return f"{super().batch_kind(state, evaluation)} {self.grids(state)}"

    def _fitted(self, picture: InputImage) -> tuple[int, int]:
        """Height and width that the model was trained on, nearest to the image's aspect ratio."""
        multiple = self.size_multiple
        rows, columns = (max(side // multiple, 1) for side in picture.shape[:2])
        _, width, height = min(
            (abs(columns / rows - width / height), width, height)
            for width, height in reference.PREFERRED_KONTEXT_RESOLUTIONS
        )
        return height // multiple * multiple, width // multiple * multiple


PIPELINE = FluxKontextPipeline
