"""Inpainting with a model not made for it: unmasked parts are restored from the image."""

from __future__ import annotations

from torch import Tensor

from multimodal_gen.runtime.stages.request_state import Estimate, RequestState


class UnmaskedLatents:
    """Called after each step of one request: restores the image where the mask is 0, with the noise
    of the current latents (RePaint, Lugmayr et al. 2022, eq. 8)."""

    def __init__(self, clean: Tensor, noise: Tensor, mask: Tensor) -> None:
        """All [1, ...], in the layout of the latents; the mask is 1 where the image changes."""
        self._clean = clean
        self._noise = noise
        self._mask = mask

    def __call__(self, state: RequestState, x0: Estimate) -> None:
        solver, latents = state.running()
        kept = self._clean
        if state.evaluation < solver.num_evaluations:
            kept = solver.add_noise(self._clean, self._noise, state.evaluation)
        state.latents = (1 - self._mask) * kept + self._mask * latents


def restore_unmasked_latents(
    state: RequestState, clean: Tensor, noise: Tensor, mask: Tensor
) -> None:
    """Let the request keep its image where the mask is 0."""
    state.after_step.append(UnmaskedLatents(clean, noise, mask))
