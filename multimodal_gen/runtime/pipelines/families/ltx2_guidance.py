"""Guidance of LTX-2: away from a negative prompt, from the model without one of its attentions, and
from video and sound that do not hear of each other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.runtime.pipelines.families.ltx2_frames import GivenFrames
from multimodal_gen.runtime.pipelines.guidance import guide_each
from multimodal_gen.runtime.pipelines.latents.with_sound import LatentsWithSound
from multimodal_gen.runtime.stages.request_state import RequestState

PERTURBED, ISOLATED = "perturbed", "isolated"
"""Branches, with the positive's conditioning, of the model without a self-attention, and of the
model without attention between video and sound."""


class LTX2Guidance:
    """Adds to the positive prediction its distances from the others, times their weights."""

    scale_name: str | None = "guidance_scale"

    def __init__(self, layout: LatentsWithSound, frames: GivenFrames, *, skips: bool) -> None:
        """`skips`: the model has a self-attention that it can do without."""
        self._layout = layout
        self._frames = frames
        self._skips = skips

    def branches(self, params: SamplingParams) -> tuple[str, ...]:
        weights = self._weights(params)
        return ("positive", *(name for name, pair in weights.items() if max(pair) > 0))

    def _weights(self, params: SamplingParams) -> dict[str, tuple[float, float]]:
        """Weight of each branch for video and sound; those without any are not needed."""
        scale = params.guidance_scale or 0.0
        of_sound = params.audio_guidance_scale or scale
        skipping = (params.stg_scale or 0.0) if self._skips else 0.0
        apart = (1.0 if params.modality_scale is None else params.modality_scale) - 1
        return {
            "negative": (scale - 1, of_sound - 1),
            PERTURBED: (skipping, skipping),
            ISOLATED: (apart, apart),
        }

    def guide_all(
        self, predictions: Tensor, states: Sequence[RequestState], rows: Sequence[int]
    ) -> Tensor:
        return guide_each(self, predictions, states, rows)

    def guide(self, prediction: Tensor, state: RequestState) -> Tensor:
        """Velocity [1, S, C] in float32 for the rows of a request; 0 for given frames."""
        prediction = prediction.float()
        solver, latents = state.running()
        sound = self._layout.sound_tokens(state.params)
        counts = (prediction.shape[1] - sound, sound)
        sigma, weights = solver.noise_level(state.evaluation), self._weights(state.params)
        rescale = state.params.guidance_rescale or 0.0
        branches = state.combined_at(state.evaluation)
        parts = []
        for at, (rows, noisy) in enumerate(
            zip(prediction.split(counts, dim=1), latents.split(counts, dim=1), strict=True)
        ):
            positive, guided = rows[:1], rows[:1]
            for branch, row in zip(branches, rows.split(1), strict=True):
                if branch != "positive":
                    guided = guided + weights[branch][at] * (positive - row)
            if len(rows) > 1 and rescale:
                guided = _rescaled(guided, positive, noisy, sigma, rescale)
            parts.append(guided)
        velocity, kept = torch.cat(parts, dim=1), self._frames.kept(state)
        return velocity if kept is None else velocity.masked_fill(kept, 0)


def _rescaled(
    guided: Tensor, positive: Tensor, noisy: Tensor, sigma: float, rescale: float
) -> Tensor:
    """Velocity whose estimate of the clean latents has the spread of the positive's, to the extent
    `rescale` (Lin et al. 2023, arXiv:2305.08891, eq. 16)."""
    clean = noisy - sigma * guided
    factor = rescale * ((noisy - sigma * positive).std() / clean.std()) + (1 - rescale)
    return (noisy - clean * factor) / sigma
