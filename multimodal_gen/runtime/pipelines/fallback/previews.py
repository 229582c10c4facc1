"""Previews of a pipeline whose loop only the library knows."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from functools import wraps
from typing import Any

from torch import Tensor

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.runtime.distributed.rank_context import RankContext
from multimodal_gen.runtime.models.schedulers.x0 import Estimator, x0_estimator
from multimodal_gen.runtime.models.vaes.image import ImageVAE
from multimodal_gen.runtime.models.vaes.vae import VAE
from multimodal_gen.runtime.models.vaes.wan import WanVAE
from multimodal_gen.runtime.pipelines.latents.packed import PATCH, PackedLatents

log = logging.getLogger(__name__)
_WRAPPERS: Mapping[str, type[VAE]] = {
    "AutoencoderKL": ImageVAE,
    "AutoencoderDC": ImageVAE,
    "AutoencoderKLWan": WanVAE,
}


class X0Recorder:
    """Notes the estimate of x0 at each step that a library's loop takes with its scheduler."""

    def __init__(self, scheduler: Any) -> None:
        self.x0: Tensor | None = None
        """At the last step; None if it is not known."""
        self._scheduler = scheduler
        self._steps = 0
        self._estimate: Estimator | None = None
        self._broken = False
        step = scheduler.step
        parameters = inspect.signature(step)

        @wraps(step)
        def noted(*args: Any, **options: Any) -> Any:
            result = step(*args, **options)
            given = parameters.bind(*args, **options).arguments
            self._note(given["model_output"], given["sample"])
            return result

        scheduler.step = noted

    def close(self) -> None:
        """Stop: the scheduler and this object refer to each other until then."""
        del self._scheduler.step
        self.x0 = self._estimate = None

    def _note(self, prediction: Tensor, latents: Tensor) -> None:
        if self._broken:
            return
        try:
            self._estimate = self._estimate or x0_estimator(self._scheduler)
            self.x0 = self._estimate(prediction, self._steps, latents)
        except Exception:
            # A preview must not end the request that it is of.
            log.info("no previews with this scheduler", exc_info=True)
            self.x0, self._broken = None, True
        self._steps += 1


class LibraryPreviews:
    """Decodes estimates of x0 in the layouts that most pipelines use: that of the VAE, with frames
    as a third dimension for videos, or packed 2 x 2 per token."""

    def __init__(self, vae: Any, context: RankContext) -> None:
        wrapper = _WRAPPERS.get(type(vae).__name__)
        self._vae = None if wrapper is None else wrapper(vae)
        self._context = context

    def __call__(self, params: SamplingParams, x0: Tensor) -> Tensor | None:
        """Small image [h, w, 3] uint8; None for a layout that is none of those."""
        vae = self._vae
        if vae is None:
            return None
        if x0.dim() == 3 and x0.shape[2] == PATCH**2 * vae.channels:
            x0 = PackedLatents(vae, self._context).unpack(x0, params)
        first = x0[:, :, 0] if x0.dim() == 5 else x0
        if first.dim() != 4 or first.shape[:2] != (1, vae.channels):
            return None
        return vae.preview(first if isinstance(vae, ImageVAE) else first.unsqueeze(2))
